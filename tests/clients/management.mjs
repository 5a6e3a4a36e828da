// Manages triggers with the model system's SDK: management.mjs HOST:PORT CA_FILE TOKEN BROADCASTER
// TOKEN is an IAM token of an account with the role admin in the folder `default`; BROADCASTER may broadcast. The
// configuration has the registry `factory`, the gateway `main` with /ws, and the trigger `telemetry`.
// This SDK knows no discovery: every client is given the address, and so is waitForOperation. The private CA is
// `ssl.rootCerts` of the session (the variable GRPC_DEFAULT_SSL_ROOTS_FILE_PATH or, without that one,
// NODE_EXTRA_CA_CERTS would do too). Its own exchange of keys for tokens always goes to the public cloud, so it is given
// a token. It finds the id of a request only in headers that come before the trailers.
// Prints "ok" and the number of checks.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { Session, errors, waitForOperation } from "@yandex-cloud/nodejs-sdk";
import { connectionService } from "@yandex-cloud/nodejs-sdk/serverless-apigateway-websocket-v1";
import { operationService } from "@yandex-cloud/nodejs-sdk/operation";
import { trigger as triggerMessages, triggerService } from "@yandex-cloud/nodejs-sdk/serverless-triggers-v1";

const [endpoint, caFile, iamToken, broadcaster] = process.argv.slice(2);
const { Trigger } = triggerMessages;
const { CreateTriggerMetadata } = triggerService;
const rootCerts = readFileSync(caFile);
const folderId = "default";
let checks = 0;

function check(condition, what) {
  assert.ok(condition, what);
  checks += 1;
}

function equal(is, should, what) {
  assert.deepEqual(is, should, what);
  checks += 1;
}

const session = new Session({ iamToken, ssl: { rootCerts }, pollInterval: 50 });
const triggers = session.client(triggerService.TriggerServiceClient, endpoint);
const operations = session.client(operationService.OperationServiceClient, endpoint);

// google.protobuf.Any of an answer. The names of its types are checked, as Python's Unpack does.
function unpack(any, type, name) {
  equal(any.typeUrl, `type.googleapis.com/${name}`, "the type of an Any");
  return type.decode(any.value);
}

const V1 = "yandex.cloud.serverless.triggers.v1";

async function done(operation, meta) {
  const end = await waitForOperation(operation, session, 20_000, endpoint);
  check(end.done && end.id === operation.id && end.createdBy && end.createdAt, `operation ${operation.description}`);
  equal(end.metadata.typeUrl, `type.googleapis.com/${V1}.${meta}`, `the metadata of ${operation.description}`);
  return end;
}

async function changed(operation, meta) {
  return unpack((await done(operation, meta)).response, Trigger, `${V1}.Trigger`);
}

// The call must fail so, and the error must tell the id of the request.
async function refused(name, call, { words = "", field } = {}) {
  try {
    await call();
  } catch (error) {
    check(error instanceof errors.ApiError, `${name}: an ApiError, not ${error.constructor.name}: ${error.message}`);
    check(error.message.includes(`${name}:`), `${name} is expected, not: ${error.message}`);
    check(error.message.includes(words), `${words} is expected in: ${error.message}`);
    check(/^[0-9a-f-]{36}$/.test(error.requestId ?? ""), `requestId of ${error.message}: ${error.requestId}`);
    equal(error.serverTraceId, error.requestId, "serverTraceId");
    return;
  }
  check(false, `${name} is expected, not success`);
}

// The same, and in the details: the code, the request's id, and a violation of the field.
async function violated(field, request) {
  await refused("INVALID_ARGUMENT", () => triggers.create(request), { words: `Validation failed: ${field}: ` });
  let trailer;
  await assert.rejects(triggers.create(request, { onTrailer: (metadata) => (trailer = metadata) }));
  const bytes = Buffer.from(trailer.get("grpc-status-details-bin") ?? []);
  equal([bytes[0], bytes[1]], [0x08, 3], "google.rpc.Status begins with its code");
  const types = ["BadRequest", "RequestInfo"].map((name) => `type.googleapis.com/google.rpc.${name}`);
  for (const part of [...types, field]) {
    check(bytes.includes(part), `${part} in the details of ${field}`);
  }
}

function rule({ registryId = "factory", path = "/ws", mqttTopic = "$devices/+/events", size = 10 } = {}) {
  const gatewayWebsocketBroadcast = { gatewayId: "main", path, serviceAccountId: broadcaster };
  const batchSettings = { size, cutoff: { seconds: 1 } };
  return { iotMessage: { registryId, mqttTopic, batchSettings, gatewayWebsocketBroadcast } };
}

const creation = (name, more = {}) =>
  triggerService.CreateTriggerRequest.fromPartial({ folderId, name, rule: rule(), ...more });
const named = (kind, triggerId) => triggerService[`${kind}TriggerRequest`].fromPartial({ triggerId });
const create = async (request) => changed(await triggers.create(request), "CreateTriggerMetadata");

async function life() {
  const operation = await triggers.create(creation("node-one", { description: "words", labels: { hall: "north" } }));
  const { triggerId } = unpack(operation.metadata, CreateTriggerMetadata, `${V1}.CreateTriggerMetadata`);
  const made = await changed(operation, "CreateTriggerMetadata");
  equal([made.id, made.name, made.folderId], [triggerId, "node-one", folderId], "the trigger");
  equal([made.description, made.labels], ["words", { hall: "north" }], "its words");
  equal(made.status, triggerMessages.Trigger_Status.ACTIVE, "it is active");
  equal(Trigger.toJSON(made).rule, Trigger.toJSON(Trigger.fromPartial({ rule: rule() })).rule, "its rule");
  check(Math.abs(made.createdAt - Date.now()) < 60_000, "createdAt");
  const get = () => triggers.get(named("Get", triggerId));
  equal(await get(), made, "get gives what create gave");
  equal((await operations.get({ operationId: operation.id })).id, operation.id, "the operation");

  const update = async (fields) => {
    const request = triggerService.UpdateTriggerRequest.fromPartial({ triggerId, ...fields });
    return changed(await triggers.update(request), "UpdateTriggerMetadata");
  };
  const updateMask = { paths: ["rule.iot_message.batch_settings.size"] };
  const size = await update({ updateMask, rule: rule({ size: 7 }) });
  equal(Number(size.rule.iotMessage.batchSettings.size), 7, "an update of the size");
  equal([size.name, size.description], ["node-one", "words"], "nothing else");
  const all = await update({ name: "node-two", rule: rule() });
  equal([all.name, all.description, all.labels], ["node-two", "", {}], "an update without a mask resets");

  const paused = await changed(await triggers.pause(named("Pause", triggerId)), "PauseTriggerMetadata");
  equal(paused.status, triggerMessages.Trigger_Status.PAUSED, "paused");
  const resumed = await changed(await triggers.resume(named("Resume", triggerId)), "ResumeTriggerMetadata");
  equal(resumed.status, triggerMessages.Trigger_Status.ACTIVE, "resumed");

  const others = [await create(creation("node-three")), await create(creation("node-four"))];
  const list = (fields) => triggers.list(triggerService.ListTriggersRequest.fromPartial({ folderId, ...fields }));
  const names = [];
  let pageToken = "";
  do {
    const page = await list({ pageSize: 1, pageToken });
    check(page.triggers.length <= 1, "a page");
    names.push(...page.triggers.map(({ name }) => name));
    pageToken = page.nextPageToken;
  } while (pageToken);
  for (const name of ["telemetry", "node-two", "node-three", "node-four"]) {
    equal(names.filter((one) => one === name).length, 1, `${name} is listed once`);
  }
  const found = await list({ filter: 'name="node-three"' });
  equal(found.triggers.map(({ name }) => name), ["node-three"], "a filter");

  const request = triggerService.ListTriggerOperationsRequest.fromPartial({ triggerId });
  const told = (await triggers.listOperations(request)).operations.map(({ description }) => description.split(" ")[0]);
  equal(told, ["Resume", "Pause", "Update", "Update", "Create"], "operations, the newest first");
  for (const { id } of [made, ...others]) {
    const end = await done(await triggers.delete(named("Delete", id)), "DeleteTriggerMetadata");
    equal(end.response.typeUrl, "type.googleapis.com/google.protobuf.Empty", "deleted");
  }
  for (const kind of ["Get", "Pause", "Resume", "Delete", "Update"]) {
    await refused("NOT_FOUND", () => triggers[kind.toLowerCase()](named(kind, triggerId)), { words: triggerId });
  }
  await refused("NOT_FOUND", () => operations.get({ operationId: "none" }));
}

async function refusals() {
  await violated("rule.iot_message.registry_id", creation("node-wrong", { rule: rule({ registryId: "" }) }));
  await violated("rule.iot_message.registry_id", creation("node-wrong", { rule: rule({ registryId: "none" }) }));
  await violated("rule.iot_message.batch_settings.size", creation("node-wrong", { rule: rule({ size: 1001 }) }));
  const path = "rule.iot_message.gateway_websocket_broadcast.path";
  await violated(path, creation("node-wrong", { rule: rule({ path: "/none" }) }));
  await violated("name", creation("Wrong"));
  await violated("rule", creation("node-wrong", { rule: undefined }));
  await refused("ALREADY_EXISTS", () => triggers.create(creation("telemetry")), { words: "telemetry" });
  for (const kind of ["Pause", "Resume", "Delete", "Update"]) {
    const call = () => triggers[kind.toLowerCase()](named(kind, "telemetry"));
    await refused("FAILED_PRECONDITION", call, { words: "telemetry" });
  }
  const timer = { cronExpression: "* * * * ? *", invokeFunctionWithRetry: { functionId: "f" } };
  await refused("UNIMPLEMENTED", () => triggers.create(creation("node-wrong", { rule: { timer } })));
  const stranger = new Session({ iamToken: "t1.wrong.token", ssl: { rootCerts } });
  const asStranger = stranger.client(triggerService.TriggerServiceClient, endpoint);
  await refused("UNAUTHENTICATED", () => asStranger.get(named("Get", "telemetry")));
  const connections = session.client(connectionService.ConnectionServiceClient, endpoint);
  await refused("NOT_FOUND", () => connections.get({ connectionId: "none" }));
}

// The same key gives the same operation.
async function idempotency() {
  const once = new Session({ iamToken, ssl: { rootCerts }, headers: { "Idempotency-Key": crypto.randomUUID() } });
  const client = once.client(triggerService.TriggerServiceClient, endpoint);
  const [one, two] = [await client.create(creation("node-once")), await client.create(creation("node-once"))];
  equal(two.id, one.id, "the same operation");
  const made = await changed(two, "CreateTriggerMetadata");
  await refused("ALREADY_EXISTS", () => triggers.create(creation("node-once")));
  await done(await triggers.delete(named("Delete", made.id)), "DeleteTriggerMetadata");
}

try {
  await life();
  await refusals();
  await idempotency();
} catch (error) {
  console.error(`failed after ${checks} checks: ${error.stack}`);
  process.exit(1);
}
console.log(`ok ${checks}`);
