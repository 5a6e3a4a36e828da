"""Runs the Autobahn test suite against the server: usage conformance.py PROGRAM WSTEST FOLDER [OPTION...] [CASE...].

A path whose message hook gives everything back is what the suite talks to. Prints a table of verdicts, and ends with 1 if a case
fails that is not refused on purpose. `scripts/conformance` calls it; docs/conformance.md explains the results.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import echo

# What the suite needs at most: messages of 16 MiB, in frames as long; messages of 64-byte fragments as fast as they come.
RAISED = "{ message_bytes: 16777216, frame_bytes: 16777216, frames_per_second: 1000000, bytes_per_second: 1000000000 }"
# Cases that the default limits of a path refuse, with the code of the close frame: single frames over 32 KiB, messages over
# 128 KiB, and more frames in a second than a client may send. docs/conformance.md gives the reasons.
TOO_BIG, TOO_FAST = 1009, 1008
REFUSED = {
    "raised": {},
    "default": {
        **{f"1.{kind}.{case}": [TOO_BIG] for kind in (1, 2) for case in (6, 7, 8)},
        **{f"9.{kind}.{case}": [TOO_BIG] for kind in (1, 2, 5, 6) for case in range(1, 7)},
        **{f"9.{kind}.{case}": [TOO_BIG, TOO_FAST] for kind in (3, 4) for case in range(1, 10)},
    },
}
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
# Offers of compression with a window for the server that is smaller than 32 KiB, and no other offer, are not accepted: a batch is
# compressed once for all. The suite then has nothing to try.
DECLINED = {f"13.{kind}.{case}" for kind in (3, 5) for case in range(1, 19)}

CONFIG = """data_dir: ./data
gateway: {{ listen: "127.0.0.1:0", drain: 100ms, handshakes_per_second: 10000, allowed_local_targets: ["{backend}"] }}
management: {{ listen: "127.0.0.1:0", grpc_listen: "127.0.0.1:0" }}
log: {{ format: json }}
gateways:
  - {{ id: main, openapi: gateway.yaml }}
"""
DOCUMENT = """openapi: 3.0.0
info: {{ title: conformance, version: '1' }}
paths:
  /echo:
{path}    x-yc-apigateway-websocket-message:
      x-yc-apigateway-integration: {{ type: http, url: 'http://{backend}/' }}
"""


def start(program, folder, limits, deflate):
    """The server with the path `/main/echo`, and the address of its gateway."""
    backend = echo.serve()
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    address = "%s:%d" % backend.server_address
    keys = ([f"limits: {RAISED}"] if limits == "raised" else []) + (["deflate: true"] if deflate else [])
    path = "    x-triggercast-path: {{ {} }}\n".format(", ".join(keys)) if keys else ""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG.format(backend=address))
    (folder / "gateway.yaml").write_text(DOCUMENT.format(backend=address, path=path))
    server = subprocess.Popen([program, "--config", "config.yaml"], cwd=folder, stderr=subprocess.PIPE, text=True)
    gateway = None
    for line in server.stderr:
        fields = json.loads(line)["fields"]
        if fields.get("message") == "listening" and fields["service"] == "gateway":
            gateway = fields["address"]
        if fields.get("message") == "ready":
            break
    else:
        sys.exit("the server does not start")
    threading.Thread(target=server.stderr.read, daemon=True).start()
    return server, gateway


def run(wstest, folder, gateway, cases, left_out):
    """The suite's verdicts: of each case its id, behaviour, behaviour at the close."""
    spec = {
        "outdir": "reports",
        "servers": [{"agent": "triggercast", "url": f"ws://{gateway}/main/echo"}],
        "cases": cases,
        "exclude-cases": left_out,
        "exclude-agent-cases": {},
    }
    (folder / "fuzzingclient.json").write_text(json.dumps(spec))
    (folder / "reports/index.json").unlink(missing_ok=True)
    with open(folder / "wstest.log", "w") as log:
        subprocess.run([wstest, "-m", "fuzzingclient", "-s", "fuzzingclient.json"], cwd=folder, stdout=log, stderr=log)
    report = folder / "reports/index.json"
    if not report.exists():
        sys.exit(f"the suite gives no report: see {folder / 'wstest.log'}")
    return json.loads(report.read_text())["triggercast"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("wstest", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limits", choices=["raised", "default"], default="raised")
    parser.add_argument("--deflate", action="store_true", help="let clients compress, which the cases 12.* and 13.* need")
    parser.add_argument("--without", action="append", default=[], help="cases to leave out, such as 9.*")
    parser.add_argument("cases", nargs="*", help="such as 1.* or 6.4.3; none: all, those of compression only with --deflate")
    given = parser.parse_intermixed_args()
    folder = given.folder.resolve() / given.limits
    left_out = given.without + ([] if given.cases or given.deflate else ["12.*", "13.*"])
    server, gateway = start(given.program.resolve(), folder, given.limits, given.deflate)
    begun = time.monotonic()
    try:
        verdicts = run(given.wstest.resolve(), folder, gateway, given.cases or ["*"], left_out)
    finally:
        server.terminate()
        server.wait()
    refused, counts, failed = REFUSED[given.limits], {}, []
    for case in sorted(verdicts, key=lambda case: [int(part) for part in case.split(".")]):
        found = verdicts[case]
        verdict, close, code = found["behavior"], found["behaviorClose"], found["remoteCloseCode"]
        if verdict not in PASSED and code in refused.get(case, []):
            verdict = "REFUSED"
        elif verdict == "UNIMPLEMENTED" and case in DECLINED and close in PASSED:
            verdict = "DECLINED"
        elif verdict not in PASSED or close not in PASSED:
            failed.append(case)
            verdict = f"{verdict}, CLOSE {close}"
        counts[verdict] = counts.get(verdict, 0) + 1
        print(f"{case:10} {verdict:16} {found['duration']:6} ms  closed with {code}")
    print(f"limits {given.limits}: {len(verdicts)} cases in {time.monotonic() - begun:.0f} s:", counts)
    if failed:
        print("FAILED:", " ".join(failed))
    return 1 if failed or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
