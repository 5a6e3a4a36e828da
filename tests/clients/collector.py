"""A collector of traces: says its address, then a line of JSON for each span that it gets by OTLP over gRPC."""

import json
import sys
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


def text(attributes):
    values = ((pair.key, pair.value) for pair in attributes)
    return {key: value.string_value or value.int_value for key, value in values}


class Collector(TraceServiceServicer):
    def Export(self, request, context):
        for group in request.resource_spans:
            service = text(group.resource.attributes)["service.name"]
            for span in (span for scope in group.scope_spans for span in scope.spans):
                told = {
                    "service": service,
                    "name": span.name,
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "attributes": text(span.attributes),
                }
                print(json.dumps(told), flush=True)
        return pb.ExportTraceServiceResponse()


server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
add_TraceServiceServicer_to_server(Collector(), server)
port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
print(f"127.0.0.1:{port}", flush=True)
server.wait_for_termination()
