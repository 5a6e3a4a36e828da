"""Manages triggers with the model system's SDK: management.py HOST:PORT CA_FILE KEY_FILE BROADCASTER [CONNECTION]

KEY_FILE is what `triggercast iam key create --output` writes, of an account with the role admin in the folder
`default`. BROADCASTER is the id of an account that may broadcast. The configuration has the registry `factory` with
the device `press-1`, the gateway `main` with the path /ws, and the trigger `telemetry`. CONNECTION is the id of an
open WebSocket connection to /main/ws; it is sent a text, bytes and events, then closed. Prints "ok" and the number
of checks.
"""
import json
import sys
import time
import traceback
import uuid

import grpc
import jwt
from google.protobuf import unknown_fields
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2
from yandex.cloud.access import access_pb2 as access
from yandex.cloud.iam.v1 import iam_token_service_pb2 as iam_tokens
from yandex.cloud.iam.v1 import key_service_pb2 as keys
from yandex.cloud.iam.v1 import service_account_pb2 as account
from yandex.cloud.iam.v1 import service_account_service_pb2 as accounts
from yandex.cloud.iam.v1.iam_token_service_pb2_grpc import IamTokenServiceStub
from yandex.cloud.iam.v1.key_service_pb2_grpc import KeyServiceStub
from yandex.cloud.iam.v1.service_account_service_pb2_grpc import ServiceAccountServiceStub
from yandex.cloud.iot.devices.v1 import device_data_service_pb2 as device_data
from yandex.cloud.iot.devices.v1 import device_pb2 as device
from yandex.cloud.iot.devices.v1 import device_service_pb2 as devices
from yandex.cloud.iot.devices.v1 import registry_pb2 as registry
from yandex.cloud.iot.devices.v1 import registry_service_pb2 as registries
from yandex.cloud.iot.devices.v1.device_data_service_pb2_grpc import DeviceDataServiceStub
from yandex.cloud.iot.devices.v1.device_service_pb2_grpc import DeviceServiceStub
from yandex.cloud.iot.devices.v1.registry_service_pb2_grpc import RegistryServiceStub
from yandex.cloud.operation.operation_service_pb2 import CancelOperationRequest, GetOperationRequest
from yandex.cloud.operation.operation_service_pb2_grpc import OperationServiceStub
from yandex.cloud.resourcemanager.v1.folder_service_pb2_grpc import FolderServiceStub
from yandex.cloud.serverless.apigateway.v1 import apigateway_pb2 as gateway
from yandex.cloud.serverless.apigateway.v1 import apigateway_service_pb2 as gateways
from yandex.cloud.serverless.apigateway.v1.apigateway_service_pb2_grpc import ApiGatewayServiceStub
from yandex.cloud.serverless.apigateway.websocket.v1 import connection_service_pb2 as connections
from yandex.cloud.serverless.apigateway.websocket.v1.connection_service_pb2_grpc import ConnectionServiceStub
from yandex.cloud.serverless.triggers.v1 import trigger_pb2 as t1
from yandex.cloud.serverless.triggers.v1 import trigger_service_pb2 as s1
from yandex.cloud.serverless.triggers.v1.trigger_service_pb2_grpc import TriggerServiceStub as First
from yandex.cloud.serverless.triggers.v2 import trigger_pb2 as t2
from yandex.cloud.serverless.triggers.v2 import trigger_service_pb2 as s2
from yandex.cloud.serverless.triggers.v2.trigger_service_pb2_grpc import TriggerServiceStub as Second
import yandexcloud

FOLDER = "default"
AUDIENCE = "https://iam.api.cloud.yandex.net/iam/v1/tokens"
SPEC = """openapi: 3.0.0
info: {title: sdk, version: "1"}
paths:
  /live:
    x-yc-apigateway-websocket-message:
      operationId: hear
      x-yc-apigateway-integration: {type: dummy}
"""
checks = 0


def check(condition, what):
    global checks
    assert condition, what
    checks += 1


def equal(is_, should, what):
    check(is_ == should, f"{what}: {is_!r} is not {should!r}")


def code(name):
    return getattr(grpc.StatusCode, name)


def refused(name, call, request, field=None, metadata=None):
    """The call must fail with this code, the same code in its details, and, if a field is given, with a violation."""
    what = f"{type(request).__name__} must end with {name}"
    try:
        call(request, metadata=metadata)
    except grpc.RpcError as error:
        equal(error.code(), code(name), f"{what}, not: {error.details()}")
        trailers = dict(error.trailing_metadata())
        status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
        equal((status.code, status.message), (error.code().value[0], error.details()), f"{what}: google.rpc.Status")
        found = {}
        for detail in status.details:
            for kind in (error_details_pb2.BadRequest, error_details_pb2.RequestInfo):
                if detail.Is(kind.DESCRIPTOR):
                    found[kind] = kind.FromString(detail.value)
        info = found.get(error_details_pb2.RequestInfo)
        check(info and info.request_id, f"{what}: RequestInfo in the details")
        initial = {**dict(error.initial_metadata() or ()), **trailers}
        equal(initial.get("x-request-id"), info.request_id, f"{what}: x-request-id")
        bad = found.get(error_details_pb2.BadRequest)
        equal(bad is not None, name == "INVALID_ARGUMENT", f"{what}: BadRequest in the details")
        if field:
            fields = [violation.field for violation in bad.field_violations]
            check(field in fields, f"{what}: {field} is not among {fields}")
            check(all(one.description for one in bad.field_violations), f"{what}: descriptions")
        return
    check(False, what)


def until(what, ask):
    for _ in range(400):
        if ask():
            return
        time.sleep(0.025)
    check(False, what)


class Cloud:
    """The SDK, and a change that is waited for."""

    def __init__(self, endpoint, ca, key):
        self.sdk = yandexcloud.SDK(endpoint=endpoint, root_certificates=ca, service_account_key=key)

    def __call__(self, stub):
        return self.sdk.client(stub)

    def done(self, operation, response=Empty, meta=None, metadata=None):
        """Waits, and looks at the operation on the way."""
        result = self.sdk.wait_operation_and_get_result(operation, response_type=response, meta_type=meta, timeout=30)
        what = f"the operation {operation.description!r}"
        check(operation.id and operation.done and operation.created_by and operation.description, what)
        check(operation.created_at.seconds and operation.modified_at.seconds, f"{what} has times")
        equal(operation.WhichOneof("result"), "response", what)
        check(operation.response.Is(response.DESCRIPTOR), f"{what} answers with {operation.response.type_url}")
        if meta:
            check(operation.metadata.Is(meta.DESCRIPTOR), f"{what} is about {operation.metadata.type_url}")
        return result


def seconds(number):
    return Duration(seconds=number)


def rule(registry_id="factory", topic="$devices/+/events", size=10, path="/ws", gateway_id="main"):
    return t1.Trigger.Rule(
        iot_message=t1.Trigger.IoTMessage(
            registry_id=registry_id,
            mqtt_topic=topic,
            batch_settings=t1.BatchSettings(size=size, cutoff=seconds(1)),
            gateway_websocket_broadcast=t1.GatewayWebsocketBroadcast(
                gateway_id=gateway_id, path=path, service_account_id=BROADCASTER
            ),
        )
    )


def create(name="", **rest):
    return s1.CreateTriggerRequest(folder_id=FOLDER, name=name, rule=rest.pop("rule", None) or rule(), **rest)


def pages(call, request, field):
    """All items of a list, page by page."""
    items, count = [], 0
    while True:
        page = call(request)
        items += getattr(page, field)
        count += 1
        check(len(getattr(page, field)) <= request.page_size, "a page is not longer than asked for")
        check(len(page.next_page_token) <= 100, "a page token has at most 100 characters")
        if not page.next_page_token:
            return items, count
        request.page_token = page.next_page_token


def first_form(cloud, account_id):
    triggers = cloud(First)
    operation = triggers.Create(create("sdk-first", description="words", labels={"hall": "north"}))
    equal(operation.created_by, account_id, "created_by")
    result = cloud.done(operation, t1.Trigger, s1.CreateTriggerMetadata)
    trigger, id_ = result.response, result.response.id
    equal(result.meta.trigger_id, id_, "the metadata names the trigger")
    equal(trigger.rule, rule(), "the rule")
    equal((trigger.name, trigger.folder_id, trigger.status), ("sdk-first", FOLDER, t1.Trigger.ACTIVE), "the trigger")
    equal((trigger.description, dict(trigger.labels)), ("words", {"hall": "north"}), "its words")
    check(abs(trigger.created_at.seconds - time.time()) < 60, "created_at")
    get = lambda: triggers.Get(s1.GetTriggerRequest(trigger_id=id_))
    equal(get(), trigger, "Get gives what Create gave")

    # With a mask: only its fields. Without one: all of them.
    def update(response=t1.Trigger, **fields):
        request = s1.UpdateTriggerRequest(trigger_id=id_, **fields)
        return cloud.done(triggers.Update(request), response, s1.UpdateTriggerMetadata).response

    new = update(update_mask=FieldMask(paths=["description"]), name="unused", description="new")
    equal((new.name, new.description, new.rule), ("sdk-first", "new", rule()), "an update of the description")
    path = "rule.iot_message.batch_settings.size"
    new = update(update_mask=FieldMask(paths=[path]), rule=rule(topic="unused", size=7))
    equal(new.rule, rule(size=7), "an update of the size")
    new = update(update_mask=FieldMask(paths=["labels"]))
    equal((dict(new.labels), new.description), ({}, "new"), "labels are emptied")
    new = update(name="sdk-renamed", rule=rule(topic="$devices/press-1/events"))
    equal((new.name, new.description), ("sdk-renamed", ""), "an update without a mask resets")
    equal(new.rule, rule(topic="$devices/press-1/events"), "an update without a mask takes the rule")
    equal((new.id, new.created_at), (id_, trigger.created_at), "id and created_at stay")
    equal(get(), new, "Get gives what Update gave")
    request = s1.UpdateTriggerRequest(trigger_id=id_, update_mask=FieldMask(paths=["nothing"]))
    refused("INVALID_ARGUMENT", triggers.Update, request, "update_mask")
    request = s1.UpdateTriggerRequest(trigger_id=id_, update_mask=FieldMask(paths=["rule"]))
    refused("INVALID_ARGUMENT", triggers.Update, request, "rule")

    pause = s1.PauseTriggerRequest(trigger_id=id_)
    paused = cloud.done(triggers.Pause(pause), t1.Trigger, s1.PauseTriggerMetadata).response
    equal((paused.status, get().status), (t1.Trigger.PAUSED,) * 2, "paused")
    resume = s1.ResumeTriggerRequest(trigger_id=id_)
    resumed = cloud.done(triggers.Resume(resume), t1.Trigger, s1.ResumeTriggerMetadata).response
    equal((resumed.status, get().status), (t1.Trigger.ACTIVE,) * 2, "resumed")

    ids = [id_]
    for number in range(4):
        made = cloud.done(triggers.Create(create(f"sdk-many-{number}")), t1.Trigger)
        ids.append(made.response.id)
    listed, count = pages(triggers.List, s1.ListTriggersRequest(folder_id=FOLDER, page_size=2), "triggers")
    names = [trigger.name for trigger in listed]
    equal(len(set(names)), len(names), "no trigger is in two pages")
    check({"telemetry", "sdk-renamed", *(f"sdk-many-{number}" for number in range(4))} <= set(names), f"all: {names}")
    check(count >= 3, "several pages")
    for filter_, should in (
        ('name="sdk-many-2"', ["sdk-many-2"]),
        ("name = sdk-many-2", ["sdk-many-2"]),
        ("name IN ('sdk-many-1', \"sdk-many-3\")", ["sdk-many-1", "sdk-many-3"]),
        ('name="sdk-none"', []),
    ):
        found = triggers.List(s1.ListTriggersRequest(folder_id=FOLDER, filter=filter_)).triggers
        equal(sorted(trigger.name for trigger in found), should, filter_)
    found = triggers.List(s1.ListTriggersRequest(folder_id=FOLDER, filter='name!="telemetry"')).triggers
    check(len(found) >= 5 and "telemetry" not in [trigger.name for trigger in found], "name!=")
    refused("INVALID_ARGUMENT", triggers.List, s1.ListTriggersRequest(folder_id=FOLDER, filter="id=a"), "filter")
    bad = s1.ListTriggersRequest(folder_id=FOLDER, page_token="rubbish")
    refused("INVALID_ARGUMENT", triggers.List, bad, "page_token")
    for size in (-1, 1001):
        bad = s1.ListTriggersRequest(folder_id=FOLDER, page_size=size)
        refused("INVALID_ARGUMENT", triggers.List, bad, "page_size")

    request = s1.ListTriggerOperationsRequest(trigger_id=id_, page_size=3)
    operations, count = pages(triggers.ListOperations, request, "operations")
    words = ["Resume", "Pause", "Update", "Update", "Update", "Update", "Create"]
    equal([one.description.split()[0] for one in operations], words, "operations, the newest first")
    equal(count, 3, "pages of operations")
    equal(operations[-1], operation, "the first operation")
    again = cloud(OperationServiceStub).Get(GetOperationRequest(operation_id=operation.id))
    equal(again, operation, "OperationService.Get")
    refused("NOT_FOUND", cloud(OperationServiceStub).Get, GetOperationRequest(operation_id="none"))
    cancel = CancelOperationRequest(operation_id=operation.id)
    refused("FAILED_PRECONDITION", cloud(OperationServiceStub).Cancel, cancel)

    for one in ids:
        delete = triggers.Delete(s1.DeleteTriggerRequest(trigger_id=one))
        equal(cloud.done(delete, Empty, s1.DeleteTriggerMetadata).meta.trigger_id, one, "deleted")
    for call, request in (
        (triggers.Get, s1.GetTriggerRequest),
        (triggers.Update, s1.UpdateTriggerRequest),
        (triggers.Pause, s1.PauseTriggerRequest),
        (triggers.Resume, s1.ResumeTriggerRequest),
        (triggers.Delete, s1.DeleteTriggerRequest),
    ):
        refused("NOT_FOUND", call, request(trigger_id=id_))
    last = triggers.ListOperations(s1.ListTriggerOperationsRequest(trigger_id=id_, page_size=1)).operations
    equal(last[0].description.split()[0], "Delete", "a deleted trigger keeps its operations")


def source(size=10, max_bytes=4096, registry_id="factory"):
    settings = t2.BatchSettings(max_count=size, max_bytes=max_bytes, cutoff=seconds(2))
    return t2.Source(iot_message=t2.IoTMessage(registry_id=registry_id, batch_settings=settings))


def action(path="/ws", gateway_id="main", **rest):
    broadcast = t2.GatewayWebsocketBroadcast(gateway_id=gateway_id, path=path, service_account_id=BROADCASTER)
    return t2.Action(gateway_websocket_broadcast=broadcast, **rest)


def second_form(cloud):
    triggers, first = cloud(Second), cloud(First)
    steps = {"filter": t2.Filter(jq=".details.payload != null"), "transformer": t2.Transformer(jq=".details")}
    actions = [action(**steps), action()]
    request = s2.CreateTriggerRequest(folder_id=FOLDER, name="sdk-second", source=source(), action=actions)
    result = cloud.done(triggers.Create(request), t2.Trigger, s2.CreateTriggerMetadata)
    trigger, id_ = result.response, result.response.id
    equal((trigger.source, list(trigger.action)), (source(), actions), "source and actions")
    equal((trigger.status, result.meta.trigger_id), (t2.Trigger.ACTIVE, id_), "the trigger")
    get = lambda: triggers.Get(s2.GetTriggerRequest(trigger_id=id_))
    equal(get(), trigger, "Get gives what Create gave")
    refused("FAILED_PRECONDITION", first.Get, s1.GetTriggerRequest(trigger_id=id_))
    found = first.List(s1.ListTriggersRequest(folder_id=FOLDER, filter="name=sdk-second")).triggers
    equal(list(found), [], "two actions have no first form")

    def update(**fields):
        request = s2.UpdateTriggerRequest(trigger_id=id_, **fields)
        return cloud.done(triggers.Update(request), t2.Trigger, s2.UpdateTriggerMetadata).response

    paths = ["source.iot_message.batch_settings.max_count"]
    new = update(update_mask=FieldMask(paths=paths), source=source(size=3))
    equal((new.source, list(new.action)), (source(size=3), actions), "an update of the count")
    new = update(name="sdk-plain", source=source(max_bytes=0), action=[action()])
    equal((new.name, list(new.action)), ("sdk-plain", [action()]), "an update without a mask")
    seen = first.Get(s1.GetTriggerRequest(trigger_id=id_))
    broadcast = seen.rule.iot_message.gateway_websocket_broadcast
    equal((seen.name, broadcast.path, seen.rule.iot_message.batch_settings.size), ("sdk-plain", "/ws", 10), "as v1")

    pause = triggers.Pause(s2.PauseTriggerRequest(trigger_id=id_))
    equal(cloud.done(pause, t2.Trigger, s2.PauseTriggerMetadata).response.status, t2.Trigger.PAUSED, "paused")
    equal(first.Get(s1.GetTriggerRequest(trigger_id=id_)).status, t1.Trigger.PAUSED, "paused, as v1 sees it")
    resume = triggers.Resume(s2.ResumeTriggerRequest(trigger_id=id_))
    equal(cloud.done(resume, t2.Trigger, s2.ResumeTriggerMetadata).response.status, t2.Trigger.ACTIVE, "resumed")
    listed, _ = pages(triggers.List, s2.ListTriggersRequest(folder_id=FOLDER, page_size=1), "triggers")
    check({"telemetry", "sdk-plain"} <= {trigger.name for trigger in listed}, "the list has both")
    operations = triggers.ListOperations(s2.ListTriggerOperationsRequest(trigger_id=id_)).operations
    words = [one.description.split()[0] for one in operations]
    equal(words, ["Resume", "Pause", "Update", "Update", "Create"], "operations")

    def wrong(name, field, source_=None, actions=None):
        request = s2.CreateTriggerRequest(
            folder_id=FOLDER, name="sdk-wrong", source=source_ or source(), action=actions or [action()]
        )
        refused(name, triggers.Create, request, field)

    wrong("INVALID_ARGUMENT", "source.iot_message.registry_id", source_=source(registry_id=""))
    wrong("INVALID_ARGUMENT", "source.iot_message.registry_id", source_=source(registry_id="none"))
    wrong("INVALID_ARGUMENT", "source.iot_message.batch_settings.max_bytes", source_=source(max_bytes=-1))
    wrong("INVALID_ARGUMENT", "action[0].filter.jq", actions=[action(filter=t2.Filter(jq=".a | |"))])
    bad = action(transformer=t2.Transformer(jq="("))
    wrong("INVALID_ARGUMENT", "action[1].transformer.jq", actions=[action(), bad])
    wrong("INVALID_ARGUMENT", "action[0].filter.jq", actions=[action(filter=t2.Filter(jq="." + " " * 1024))])
    wrong("INVALID_ARGUMENT", "action[0].gateway_websocket_broadcast.path", actions=[action(path="/none")])
    wrong("UNIMPLEMENTED", None, source_=t2.Source(timer=t2.Timer(cron_expression="* * * * ? *")))
    function = t2.Action(invoke_function=t2.InvokeFunction(function_id="f", service_account_id=BROADCASTER))
    wrong("UNIMPLEMENTED", None, actions=[function])
    request = s2.CreateTriggerRequest(folder_id=FOLDER, name="sdk-wrong", source=source())
    refused("INVALID_ARGUMENT", triggers.Create, request, "action")
    refused("FAILED_PRECONDITION", triggers.Pause, s2.PauseTriggerRequest(trigger_id="telemetry"))
    delete = triggers.Delete(s2.DeleteTriggerRequest(trigger_id=id_))
    cloud.done(delete, Empty, s2.DeleteTriggerMetadata)
    refused("NOT_FOUND", triggers.Get, s2.GetTriggerRequest(trigger_id=id_))


def refusals(cloud, endpoint, ca, key):
    triggers = cloud(First)

    def wrong(field, **rest):
        refused("INVALID_ARGUMENT", triggers.Create, create(**{"name": "sdk-wrong", **rest}), field)

    wrong("rule.iot_message.registry_id", rule=rule(registry_id=""))
    wrong("rule.iot_message.registry_id", rule=rule(registry_id="none"))
    wrong("rule.iot_message.mqtt_topic", rule=rule(topic="$devices/#/events"))
    wrong("rule.iot_message.batch_settings.size", rule=rule(size=1001))
    wrong("rule.iot_message.gateway_websocket_broadcast.path", rule=rule(path=""))
    wrong("rule.iot_message.gateway_websocket_broadcast.gateway_id", rule=rule(gateway_id="none"))
    bare = rule()
    bare.iot_message.batch_settings.ClearField("cutoff")
    wrong("rule.iot_message.batch_settings.cutoff", rule=bare)
    late = rule()
    late.iot_message.batch_settings.cutoff.FromSeconds(61)
    wrong("rule.iot_message.batch_settings.cutoff", rule=late)
    unknown = rule()
    unknown.iot_message.device_id = "none"
    wrong("rule.iot_message.device_id", rule=unknown)
    idle = rule()
    idle.iot_message.ClearField("action")
    wrong("rule.iot_message", rule=idle)
    for name in ("ab", "Upper", "a" * 64, "ends-", "1st"):
        wrong("name", name=name)
    wrong("description", description="x" * 501)
    wrong("labels", labels={f"k{number}": "v" for number in range(65)})
    refused("INVALID_ARGUMENT", triggers.Create, s1.CreateTriggerRequest(folder_id=FOLDER, name="sdk-wrong"), "rule")
    refused("INVALID_ARGUMENT", triggers.Create, s1.CreateTriggerRequest(rule=rule()), "folder_id")
    refused("INVALID_ARGUMENT", triggers.Get, s1.GetTriggerRequest(), "trigger_id")
    nowhere = s1.CreateTriggerRequest(folder_id="none", name="sdk-wrong", rule=rule())
    refused("NOT_FOUND", triggers.Create, nowhere)
    refused("NOT_FOUND", triggers.List, s1.ListTriggersRequest(folder_id="none"))
    refused("ALREADY_EXISTS", triggers.Create, create("telemetry"))
    for call, request in (
        (triggers.Update, s1.UpdateTriggerRequest(trigger_id="telemetry", name="telemetry", rule=rule())),
        (triggers.Pause, s1.PauseTriggerRequest(trigger_id="telemetry")),
        (triggers.Resume, s1.ResumeTriggerRequest(trigger_id="telemetry")),
        (triggers.Delete, s1.DeleteTriggerRequest(trigger_id="telemetry")),
    ):
        refused("FAILED_PRECONDITION", call, request)
    equal(triggers.Get(s1.GetTriggerRequest(trigger_id="telemetry")).name, "telemetry", "the file's trigger is seen")
    function = t1.InvokeFunctionWithRetry(function_id="f")
    timer = t1.Trigger.Timer(cron_expression="* * * * ? *", invoke_function_with_retry=function)
    refused("UNIMPLEMENTED", triggers.Create, create("sdk-wrong", rule=t1.Trigger.Rule(timer=timer)))
    other = rule()
    other.iot_message.invoke_function.CopyFrom(function)
    refused("UNIMPLEMENTED", triggers.Create, create("sdk-wrong", rule=other))

    # Nobody knows who calls: a wrong token, a key that is not known, a key that signs for another.
    def nobody(**config):
        stub = yandexcloud.SDK(endpoint=endpoint, root_certificates=ca, **config).client(First)
        try:
            stub.Get(s1.GetTriggerRequest(trigger_id="telemetry"), timeout=20)
            check(False, f"{list(config)} must not be taken")
        except grpc.RpcError as error:
            # What the SDK's own call for a token was answered with comes as UNAVAILABLE, and is told in the words.
            told = error.code() == code("UNAUTHENTICATED") or "UNAUTHENTICATED" in error.details()
            check(told, f"UNAUTHENTICATED is expected, not {error.code()}: {error.details()}")

    nobody(iam_token="t1.wrong.token")
    nobody(service_account_key={**key, "id": "none"})
    nobody(service_account_key={**key, "service_account_id": "broadcaster"})
    request = iam_tokens.CreateIamTokenRequest(jwt="a.b.c")
    refused("UNAUTHENTICATED", cloud(IamTokenServiceStub).Create, request)
    refused("INVALID_ARGUMENT", cloud(IamTokenServiceStub).Create, iam_tokens.CreateIamTokenRequest(), "jwt")


def idempotency(cloud):
    triggers, key = cloud(First), (("idempotency-key", str(uuid.uuid4())),)
    one = triggers.Create(create("sdk-once"), metadata=key)
    two = triggers.Create(create("sdk-once"), metadata=key)
    equal(two, one, "the same key gives the same operation")
    id_ = cloud.done(one, t1.Trigger, s1.CreateTriggerMetadata).meta.trigger_id
    found = triggers.List(s1.ListTriggersRequest(folder_id=FOLDER, filter="name=sdk-once")).triggers
    equal(len(found), 1, "the trigger is made once")
    other = (("idempotency-key", str(uuid.uuid4())),)
    refused("ALREADY_EXISTS", triggers.Create, create("sdk-once"), metadata=other)
    # A call that failed is not kept, and another method is another call.
    delete = s1.DeleteTriggerRequest(trigger_id=id_)
    gone = triggers.Delete(delete, metadata=key)
    check(gone.id != one.id, "a key counts for one method")
    equal(triggers.Delete(delete, metadata=key), gone, "a repeated delete")
    refused("NOT_FOUND", triggers.Delete, delete)
    made = triggers.Create(create("sdk-once"), metadata=other)
    cloud.done(triggers.Delete(s1.DeleteTriggerRequest(trigger_id=cloud.done(made, t1.Trigger).response.id)))
    equal(triggers.Create(create("sdk-once"), metadata=key), one, "a repeat is answered after a deletion too")
    refused("NOT_FOUND", triggers.Get, s1.GetTriggerRequest(trigger_id=id_))
    long = (("idempotency-key", "x" * 129),)
    refused("INVALID_ARGUMENT", triggers.Create, create("sdk-once"), "idempotency-key", metadata=long)


def devices_and_gateways(cloud):
    registry_stub, device_stub = cloud(RegistryServiceStub), cloud(DeviceServiceStub)
    request = registries.CreateRegistryRequest(folder_id=FOLDER, name="sdk-hall", password="Sdk-hall-password-1")
    made = cloud.done(registry_stub.Create(request), registry.Registry, registries.CreateRegistryMetadata)
    hall = made.response.id
    equal(made.response.status, registry.Registry.ACTIVE, "the registry is active")
    weak = registries.CreateRegistryRequest(folder_id=FOLDER, name="sdk-weak", password="short")
    refused("INVALID_ARGUMENT", registry_stub.Create, weak, "password")
    request = devices.CreateDeviceRequest(
        registry_id=hall,
        name="sdk-press",
        password="Sdk-press-password-1",
        topic_aliases={"sdk/press": "$devices/{device_id}/events"},
    )
    made = cloud.done(device_stub.Create(request), device.Device, devices.CreateDeviceMetadata)
    press = made.response.id
    equal(dict(made.response.topic_aliases), {"sdk/press": f"$devices/{press}/events"}, "{device_id} in an alias")
    refused("ALREADY_EXISTS", device_stub.Create, request)
    named = device_stub.GetByName(devices.GetByNameDeviceRequest(registry_id=hall, device_name="sdk-press"))
    equal(named, made.response, "GetByName")
    listed = device_stub.List(devices.ListDevicesRequest(registry_id=hall)).devices
    equal([one.id for one in listed], [press], "the list of devices")
    request = devices.AddDevicePasswordRequest(device_id=press, password="Second-password-2")
    added = cloud.done(device_stub.AddPassword(request), device.DevicePassword, devices.AddDevicePasswordMetadata)
    passwords = device_stub.ListPasswords(devices.ListDevicePasswordsRequest(device_id=press)).passwords
    equal(len(passwords), 2, "two passwords")
    check(added.meta.password_id in [one.id for one in passwords], "the new password is listed")
    request = devices.DeleteDevicePasswordRequest(device_id=press, password_id=added.meta.password_id)
    cloud.done(device_stub.DeletePassword(request))

    gateway_stub, triggers = cloud(ApiGatewayServiceStub), cloud(First)
    request = gateways.CreateApiGatewayRequest(folder_id=FOLDER, name="sdk-gateway", openapi_spec=SPEC)
    made = cloud.done(gateway_stub.Create(request), gateway.ApiGateway, gateways.CreateApiGatewayMetadata)
    door = made.response.id
    equal(made.response.status, gateway.ApiGateway.ACTIVE, "the gateway is active")
    spec = gateway_stub.GetOpenapiSpec(gateways.GetOpenapiSpecRequest(api_gateway_id=door))
    equal(spec.openapi_spec, SPEC, "the document")
    as_json = gateways.GetOpenapiSpecRequest(api_gateway_id=door, format=gateways.GetOpenapiSpecRequest.JSON)
    check("/live" in json.loads(gateway_stub.GetOpenapiSpec(as_json).openapi_spec)["paths"], "the document as JSON")
    none = gateways.CreateApiGatewayRequest(folder_id=FOLDER, name="sdk-none", openapi_spec="openapi: 3.0.0")
    refused("INVALID_ARGUMENT", gateway_stub.Create, none, "openapi_spec")

    request = create("sdk-made", rule=rule(registry_id=hall, topic="", path="/live", gateway_id=door))
    made = cloud.done(triggers.Create(request), t1.Trigger).response
    publish = device_data.PublishDeviceDataRequest(device_id=press, topic=f"$devices/{press}/events", data=b"21")
    cloud(DeviceDataServiceStub).Publish(publish)
    checks_ = [
        (gateway_stub.Delete, gateways.DeleteApiGatewayRequest(api_gateway_id=door)),
        (registry_stub.Delete, registries.DeleteRegistryRequest(registry_id=hall)),
    ]
    for call, request in checks_:
        refused("FAILED_PRECONDITION", call, request)
    cloud.done(triggers.Delete(s1.DeleteTriggerRequest(trigger_id=made.id)))
    moved = SPEC.replace("/live", "/moved")
    request = gateways.UpdateApiGatewayRequest(
        api_gateway_id=door, update_mask=FieldMask(paths=["openapi_spec"]), openapi_spec=moved
    )
    cloud.done(gateway_stub.Update(request), gateway.ApiGateway, gateways.UpdateApiGatewayMetadata)
    spec = gateway_stub.GetOpenapiSpec(gateways.GetOpenapiSpecRequest(api_gateway_id=door))
    equal(spec.openapi_spec, moved, "the new document")
    refused("FAILED_PRECONDITION", registry_stub.Delete, registries.DeleteRegistryRequest(registry_id=hall))
    cloud.done(device_stub.Delete(devices.DeleteDeviceRequest(device_id=press)), Empty, devices.DeleteDeviceMetadata)
    for call, request in checks_:
        cloud.done(call(request))
    refused("NOT_FOUND", registry_stub.Get, registries.GetRegistryRequest(registry_id=hall))
    refused("NOT_FOUND", gateway_stub.Get, gateways.GetApiGatewayRequest(api_gateway_id=door))
    press_1 = device_data.PublishDeviceDataRequest(device_id="press-1", topic="$devices/other/events", data=b"x")
    refused("INVALID_ARGUMENT", cloud(DeviceDataServiceStub).Publish, press_1, "topic")


def short_lives(cloud):
    """A trigger may go while its events are on their way; those of others are kept all the same."""
    triggers, publisher = cloud(First), cloud(DeviceDataServiceStub)
    publish = device_data.PublishDeviceDataRequest(device_id="press-1", topic="$devices/press-1/events", data=b"1")
    for number in range(10):
        made = cloud.done(triggers.Create(create(f"sdk-short-{number}")), t1.Trigger).response
        publisher.Publish(publish)
        cloud.done(triggers.Delete(s1.DeleteTriggerRequest(trigger_id=made.id)))
    publisher.Publish(publish)
    telemetry = triggers.Get(s1.GetTriggerRequest(trigger_id="telemetry"))
    # The SDK does not know our field `conditions`, but keeps it.
    equal(len(unknown_fields.UnknownFieldSet(telemetry)), 0, "the number of things that keep telemetry from running")


def bearer(stub, key):
    """A token for a JWT that we sign ourselves, with the audience of the real cloud, as metadata."""
    now = int(time.time())
    claims = {"iss": key["service_account_id"], "aud": AUDIENCE, "iat": now, "exp": now + 3600}
    signed = jwt.encode(claims, key["private_key"], algorithm="PS256", headers={"kid": key["id"]})
    token = stub.Create(iam_tokens.CreateIamTokenRequest(jwt=signed)).iam_token
    return (("authorization", f"Bearer {token}"),)


def people(cloud, endpoint, ca, own_key):
    """Accounts, roles and tokens: another account may do more from binding to binding."""
    stub, folder_stub = cloud(ServiceAccountServiceStub), cloud(FolderServiceStub)
    request = accounts.CreateServiceAccountRequest(folder_id=FOLDER, name="sdk-helper")
    made = cloud.done(stub.Create(request), account.ServiceAccount, accounts.CreateServiceAccountMetadata)
    helper = made.response.id
    refused("ALREADY_EXISTS", stub.Create, request)
    found = stub.List(accounts.ListServiceAccountsRequest(folder_id=FOLDER, filter='name="sdk-helper"'))
    equal([one.id for one in found.service_accounts], [helper], "the list of accounts")
    created = cloud(KeyServiceStub).Create(keys.CreateKeyRequest(service_account_id=helper))
    equal(created.key.service_account_id, helper, "whose key")
    key = {"id": created.key.id, "service_account_id": helper, "private_key": created.private_key}
    other = Cloud(endpoint, ca, key)
    triggers = other(First)
    list_ = s1.ListTriggersRequest(folder_id=FOLDER)
    refused("PERMISSION_DENIED", triggers.List, list_)
    refused("PERMISSION_DENIED", triggers.Get, s1.GetTriggerRequest(trigger_id="telemetry"))

    def bind(what, resource, service, response):
        subject = access.Subject(id=helper, type="serviceAccount")
        binding = lambda role: access.AccessBinding(role_id=role, subject=subject)
        deltas = [access.AccessBindingDelta(action=action, access_binding=binding(role)) for action, role in what]
        request = access.UpdateAccessBindingsRequest(resource_id=resource, access_binding_deltas=deltas)
        operation = service.UpdateAccessBindings(request)
        return cloud.done(operation, response, access.UpdateAccessBindingsMetadata).response

    result = access.AccessBindingsOperationResult
    told = bind([("ADD", "functions.viewer")], FOLDER, folder_stub, result)
    equal(len(told.effective_deltas), 1, "the change is told")
    check(triggers.List(list_).triggers, "functions.viewer sees triggers")
    refused("PERMISSION_DENIED", triggers.Create, create("sdk-helped"))
    bind([("REMOVE", "functions.viewer"), ("ADD", "functions.editor")], FOLDER, folder_stub, result)
    refused("PERMISSION_DENIED", triggers.Create, create("sdk-helped"))  # it may not act as BROADCASTER
    bind([("ADD", "iam.serviceAccounts.user")], BROADCASTER, stub, result)
    bound = stub.ListAccessBindings(access.ListAccessBindingsRequest(resource_id=BROADCASTER)).access_bindings
    check(("iam.serviceAccounts.user", helper) in [(one.role_id, one.subject.id) for one in bound], "the bindings")
    made = other.done(triggers.Create(create("sdk-helped")), t1.Trigger).response
    bind([("REMOVE", "iam.serviceAccounts.user")], BROADCASTER, stub, result)
    other.done(triggers.Delete(s1.DeleteTriggerRequest(trigger_id=made.id)))
    unknown = [access.AccessBindingDelta(action="ADD", access_binding=access.AccessBinding(
        role_id="none", subject=access.Subject(id=helper, type="serviceAccount")))]
    request = access.UpdateAccessBindingsRequest(resource_id=FOLDER, access_binding_deltas=unknown)
    place = "access_binding_deltas[0].access_binding.role_id"
    refused("INVALID_ARGUMENT", folder_stub.UpdateAccessBindings, request, place)
    # Who may not give roles gives himself none, and no key of one who may do everything.
    grab = access.UpdateAccessBindingsRequest(resource_id=FOLDER, access_binding_deltas=[
        access.AccessBindingDelta(action="ADD", access_binding=access.AccessBinding(
            role_id="admin", subject=access.Subject(id=helper, type="serviceAccount")))])
    refused("PERMISSION_DENIED", other(FolderServiceStub).UpdateAccessBindings, grab)
    bind([("ADD", "editor")], FOLDER, folder_stub, result)
    refused("PERMISSION_DENIED", other(FolderServiceStub).UpdateAccessBindings, grab)
    refused("PERMISSION_DENIED", other(KeyServiceStub).Create, keys.CreateKeyRequest(service_account_id="admin"))
    # The SDK shows no token to the service of tokens, so it is put there by hand.
    token_stub = cloud(IamTokenServiceStub)
    request = iam_tokens.CreateIamTokenForServiceAccountRequest(service_account_id="admin")
    refused("UNAUTHENTICATED", token_stub.CreateForServiceAccount, request)
    refused("PERMISSION_DENIED", token_stub.CreateForServiceAccount, request, metadata=bearer(token_stub, key))
    bind([("REMOVE", "editor")], FOLDER, folder_stub, result)

    own = bearer(token_stub, own_key)
    request = iam_tokens.CreateIamTokenForServiceAccountRequest(service_account_id=helper)
    token = token_stub.CreateForServiceAccount(request, metadata=own)
    check(token.iam_token.startswith("t1."), "the form of a token")
    check(0 < token.expires_at.seconds - time.time() <= 12 * 3600 + 60, "the life of a token")
    with_token = yandexcloud.SDK(endpoint=endpoint, root_certificates=ca, iam_token=token.iam_token).client(First)
    check(with_token.List(list_).triggers, "a token is taken")
    request = iam_tokens.RevokeIamTokenRequest(iam_token=token.iam_token)
    equal(token_stub.Revoke(request, metadata=own).subject_id, helper, "whose token")
    refused("UNAUTHENTICATED", with_token.List, list_)
    cloud.done(stub.Delete(accounts.DeleteServiceAccountRequest(service_account_id=helper)))
    refused("UNAUTHENTICATED", triggers.List, list_)
    refused("NOT_FOUND", stub.Get, accounts.GetServiceAccountRequest(service_account_id=helper))


def connection(cloud, id_):
    stub = cloud(ConnectionServiceStub)
    get = connections.GetConnectionRequest(connection_id=id_)
    seen = stub.Get(get)
    equal((seen.id, seen.gateway_id), (id_, "main"), "the connection")
    check(seen.identity.source_ip and seen.connected_at.seconds, "who it is and since when")
    check(seen.last_active_at.seconds >= seen.connected_at.seconds, "when it was active")
    send = lambda data, type_: connections.SendToConnectionRequest(connection_id=id_, data=data, type=type_)
    refused("INVALID_ARGUMENT", stub.Send, send(b"", "TEXT"), "data")
    refused("INVALID_ARGUMENT", stub.Send, send(b"x" * 131073, "BINARY"), "data")
    refused("INVALID_ARGUMENT", stub.Send, send(b"\xff", "TEXT"), "data")
    stub.Send(send("grüße".encode(), "TEXT"))
    stub.Send(send(b"\x00\xff", "BINARY"))
    triggers = cloud(First)
    made = cloud.done(triggers.Create(create("sdk-live", rule=rule(size=1))), t1.Trigger).response
    publish = device_data.PublishDeviceDataRequest(
        device_id="press-1", topic="$devices/press-1/events", data=b"from the SDK"
    )
    time.sleep(0.2)
    before = stub.Get(get).last_active_at

    def is_told():
        cloud(DeviceDataServiceStub).Publish(publish)
        time.sleep(0.1)
        return stub.Get(get).last_active_at != before

    until("the connection is sent an event", is_told)
    cloud.done(triggers.Delete(s1.DeleteTriggerRequest(trigger_id=made.id)))
    stub.Disconnect(connections.DisconnectRequest(connection_id=id_))

    def is_gone():
        try:
            stub.Get(get)
        except grpc.RpcError as error:
            return error.code() == code("NOT_FOUND")

    until("the connection is closed", is_gone)
    refused("NOT_FOUND", stub.Send, send(b"x", "TEXT"))


def main():
    endpoint, ca, key = sys.argv[1], open(sys.argv[2], "rb").read(), json.load(open(sys.argv[3]))
    cloud = Cloud(endpoint, ca, key)
    none = connections.GetConnectionRequest(connection_id="none")
    refused("NOT_FOUND", cloud(ConnectionServiceStub).Get, none)
    if len(sys.argv) > 5:
        connection(cloud, sys.argv[5])
    first_form(cloud, key["service_account_id"])
    second_form(cloud)
    refusals(cloud, endpoint, ca, key)
    idempotency(cloud)
    devices_and_gateways(cloud)
    short_lives(cloud)
    people(cloud, endpoint, ca, key)
    print(f"ok {checks}", flush=True)


BROADCASTER = sys.argv[4]
try:
    main()
except (AssertionError, grpc.RpcError) as error:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__]
    what = f"{error.code()}: {error.details()}" if isinstance(error, grpc.RpcError) else error
    sys.exit(f"failed after {checks} checks, in the lines {lines}: {what}")
