#!/bin/sh
# plain.sh PORT BAUDRATE COMMAND...: asks a modem with nothing but stty, printf and read.
# Prints the answers without their final results; ends with 1 after a command that failed.
port=$1 rate=$2
shift 2
cr=$(printf '\r')
exec 3<>"$port"
stty -F "$port" "$rate" raw -echo

ask() {
    printf '%s\r' "$1" >&3
    while read -r line <&3; do
        line=${line%"$cr"}
        case $line in
            OK) return 0 ;;
            ERROR | '+CME ERROR'*) return 1 ;;
            '' | "$1"*) ;; # blank, or the echo
            *) printf '%s\n' "$line" ;;
        esac
    done
}

for command; do
    ask "$command" || exit 1
done
