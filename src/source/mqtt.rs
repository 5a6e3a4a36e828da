//! A source on an external MQTT broker, by the client `rumqttc`.
