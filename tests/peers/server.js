// A CoAP server on an ephemeral loopback port for the tests; see nodecoap.py.
// Takes settings as JSON in its first argument; writes {"port"} and then each request as a line.
'use strict'
const coap = require('coap')

const settings = JSON.parse(process.argv[2] || '{}')
const say = (thing) => process.stdout.write(JSON.stringify(thing) + '\n')
const separate = settings.separateMs != null
const listening = separate ? { piggybackReplyMs: 1 } : {}

for (const [number] of settings.options || []) {
  coap.registerOption(String(number), (value) => value, (bytes) => bytes)
}

function answer (request, response) {
  const isAuth = /^\/auth\/[^/]+\/[^/]+$/.test(request.url)
  if (!isAuth || request.method !== 'POST') {
    response.code = isAuth ? '4.05' : '4.04'
    return response.end()
  }
  response.code = settings.code || '2.04'
  for (const [number, hex] of settings.options || []) {
    response.setOption(String(number), Buffer.from(hex, 'hex'))
  }
  response.end(Buffer.from(settings.payload || '', 'hex'))
}

const server = coap.createServer(listening, (request, response) => {
  say({
    method: request.method,
    path: request.url,
    payload: request.payload.toString('hex'),
    mid: request._packet.messageId,
    token: request._packet.token.toString('hex')
  })
  if (separate) {
    setTimeout(answer, settings.separateMs, request, response)
  } else {
    answer(request, response)
  }
})

server.listen(0, '127.0.0.1', () => say({ port: server._sock.address().port }))
process.stdin.on('end', () => process.exit(0)).resume()
