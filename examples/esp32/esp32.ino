// Publishes readings from an ESP32: what cannot be sent now is kept and sent later, in order, and is kept until it is acknowledged,
// which means: until it is on the server's disk.
//
// THIS SKETCH WAS NOT COMPILED AND NOT RUN. ../publish.py does the same, and is run by the tests.
//
// For the Arduino core for ESP32 from 3.0 (ESP-IDF 5), whose own MQTT client it uses: no library is needed.
#include <WiFi.h>
#include <mqtt_client.h>

static const char *const WIFI_NAME = "workshop";
static const char *const WIFI_PASSWORD = "change-me";
// By TLS: "mqtts://HOST:8883", and the text of the server's data/tls/ca.pem in `broker.verification.certificate` below.
static const char *const SERVER = "mqtt://192.0.2.7:1883";
static const char *const DEVICE = "press-1";
static const char *const PASSWORD = "Press-1-demo-1";

static const unsigned long EVERY_MS = 1000;
// Bytes of readings that are kept while there is no connection. When they are full, new readings are thrown away.
static const int MOST_WAITING = 32 * 1024;

static esp_mqtt_client_handle_t client;
static String events, state, commands;

static void on_event(void *, esp_event_base_t, int32_t id, void *data) {
  esp_mqtt_event_handle_t event = static_cast<esp_mqtt_event_handle_t>(data);
  switch (id) {
    case MQTT_EVENT_CONNECTED:
      esp_mqtt_client_enqueue(client, state.c_str(), "online", 0, 1, 0, true);
      esp_mqtt_client_subscribe_single(client, commands.c_str(), 1);
      break;
    case MQTT_EVENT_DATA:
      Serial.printf("command: %.*s\n", event->data_len, event->data);
      break;
    case MQTT_EVENT_DISCONNECTED:
      Serial.println("no connection; readings are kept");
      break;
  }
}

void setup() {
  Serial.begin(115200);
  WiFi.mode(WIFI_STA);
  WiFi.setAutoReconnect(true);
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);

  const String own = String("$devices/") + DEVICE;
  events = own + "/events";
  state = own + "/state";
  commands = own + "/commands";

  esp_mqtt_client_config_t config = {};
  config.broker.address.uri = SERVER;
  config.credentials.username = DEVICE;
  config.credentials.authentication.password = PASSWORD;
  // The same id and no clean session: what is repeated after a break is known again, and not broadcast twice.
  config.credentials.client_id = DEVICE;
  config.session.disable_clean_session = true;
  config.session.last_will.topic = state.c_str();
  config.session.last_will.msg = "offline";
  config.session.last_will.qos = 1;
  config.network.reconnect_timeout_ms = 5000 + esp_random() % 5000;  // Not all devices at once.
  config.outbox.limit = MOST_WAITING;
  client = esp_mqtt_client_init(&config);
  esp_mqtt_client_register_event(client, MQTT_EVENT_ANY, on_event, nullptr);
  esp_mqtt_client_start(client);
}

void loop() {
  char reading[64];
  snprintf(reading, sizeof reading, "{\"temperature\":%.1f}", temperatureRead());
  // With QoS 1 and `store` it stays in the outbox until it is acknowledged.
  if (esp_mqtt_client_enqueue(client, events.c_str(), reading, 0, 1, 0, true) < 0) {
    Serial.println("no room for more readings");
  }
  delay(EVERY_MS);
}
