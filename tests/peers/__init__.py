"""Independent CoAP peers for the tests: none of them shares code with the driver."""
