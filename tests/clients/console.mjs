// Uses the console as people do, in a headless Chromium: by mouse, by keyboard, in light and dark, wide and narrow.
// Arguments: the console's URL, the administrator's key, the MQTT port, and the checks to run.
import assert from "node:assert/strict";
import axe from "axe-core";
import mqtt from "mqtt";
import { chromium } from "playwright-core";
import WebSocket from "ws";

const [base, key, mqttPort, ...wanted] = process.argv.slice(2);
const LIMIT = 20_000;
const EVIL = '<img src=x onerror="window.wasRun=1"><script>window.wasRun=1</script>';
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const publisher = await mqtt.connectAsync({ port: Number(mqttPort), username: "press-1", password: "Press-1-demo-1" });
const publish = (payload, topic = "$devices/press-1/events") => publisher.publishAsync(topic, payload, { qos: 1 });

/** A page that must not complain, nor ask anybody else, nor be tricked. */
async function open(options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(LIMIT);
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("websocket", (socket) => asked.push(socket.url()));
  /** Nothing was wrong, but for answers with these statuses, which the browser itself notes. */
  page.done = async (statuses = []) => {
    const expected = statuses.map((status) => `the server responded with a status of ${status}`);
    assert.deepEqual(complaints.filter((text) => !expected.some((some) => text.includes(some))), []);
    const own = [new URL(base).host, new URL(await gatewayOf(page)).host];
    const others = asked.filter((url) => !url.startsWith("data:") && !own.includes(new URL(url).host));
    assert.deepEqual(others, [], "nobody else is asked");
    assert.equal(await page.evaluate("window.wasRun"), undefined, "nothing of the input was run");
    assert.deepEqual(await context.cookies(), []);
    await context.close();
  };
  await page.goto(base);
  return page;
}

/** Where the gateways are. */
const gatewayOf = async (page) => (await page.locator("meta[name=gateway]").getAttribute("content")).replace("//:", "//127.0.0.1:");

/** Calls the API as the page may. */
const api = (page, verb, path, body) => page.evaluate(async ([verb, path, body]) => {
  const headers = { Authorization: sessionStorage.getItem("triggercast.authorization"), "Content-Type": "application/json" };
  const response = await fetch(path, { method: verb, headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}, [verb, path, body]);

async function signIn(page) {
  await page.getByLabel("Key or token").fill(key);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

const go = async (page, hash, heading) => {
  await page.evaluate((to) => (location.hash = to), hash);
  await page.getByRole("heading", { name: heading, exact: true, level: 1 }).waitFor();
};

/** Asks until the answer is good. */
async function until(what, ask) {
  const end = Date.now() + LIMIT;
  for (;;) {
    if (await ask()) return;
    assert.ok(Date.now() < end, `${what} did not come`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const checks = {
  /** A trigger made by the form broadcasts what is published, and the tail shows it. */
  async create() {
    const page = await open();
    await signIn(page);
    await page.getByRole("link", { name: "Triggers", exact: true }).click();
    await page.getByRole("link", { name: "Create trigger" }).click();
    await page.getByLabel("Name", { exact: true }).fill("X");
    await page.getByLabel("Batch size").fill("2000");
    await page.getByLabel("Registry", { exact: true }).selectOption("factory");
    await page.getByLabel("Device", { exact: true }).selectOption("press-1");
    await page.getByLabel("API gateway").selectOption("main");
    await page.getByLabel("Path", { exact: true }).fill("/ws");
    await page.getByRole("button", { name: "Create trigger" }).click();
    await page.locator(".field", { hasText: "Batch size" }).locator(".wrong").filter({ hasText: "1000" }).waitFor();
    await page.getByLabel("Batch size").fill("2");
    await page.getByRole("button", { name: "Create trigger" }).click();
    await page.locator(".field", { hasText: "Name" }).locator(".wrong").filter({ hasText: "must match" }).first().waitFor();
    await page.getByLabel("Name", { exact: true }).fill("by-form");
    await page.getByLabel("Description").fill(EVIL);
    await page.getByLabel("Labels").fill("line=1");
    await page.getByLabel("MQTT topic").fill("$devices/+/events/#");
    await page.getByRole("button", { name: "Create trigger" }).click();
    await page.getByRole("heading", { name: "by-form" }).waitFor();
    await page.getByText("2 events in 1 s").waitFor();
    const own = new URL(page.url()).hash;
    await page.getByText(EVIL).first().waitFor();

    await go(page, "#/tail/main/%2Fws", "Live tail");
    await page.getByText("Live", { exact: true }).waitFor();
    const topic = '$devices/press-1/events/<b onclick="x">';
    await publish(JSON.stringify({ temperature: 21, name: EVIL }), topic);
    const row = page.locator("ol.events li", { hasText: "temperature" }).first();
    await row.waitFor();
    assert.match(await row.innerText(), /<img src=x onerror=/);
    assert.ok((await row.innerText()).includes(topic));
    await row.locator("summary").click();
    await row.locator("pre .json-name", { hasText: '"temperature"' }).waitFor();
    assert.equal(await page.locator("main img, main script, main b").count(), 0);

    // While one is read nothing moves; nor while it is paused; after that nothing is missing.
    await publish("while-read", "$devices/press-1/events/x");
    await page.getByText("1 wait").waitFor();
    assert.equal(await page.locator("ol.events li", { hasText: "while-read" }).count(), 0);
    await row.locator("summary").click();
    await page.locator("ol.events li", { hasText: "while-read" }).waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await publish("while-paused", "$devices/press-1/events/x");
    await page.getByText("1 wait").waitFor();
    assert.equal(await page.locator("ol.events li", { hasText: "while-paused" }).count(), 0);
    await page.getByRole("button", { name: "Go on" }).click();
    await page.locator("ol.events li", { hasText: "while-paused" }).waitFor();
    await page.getByLabel("Filter").fill("no such thing");
    await page.getByText("No event fits the filter.").waitFor();
    await page.getByLabel("Filter").fill("PAUSED");
    await page.locator("ol.events li", { hasText: "while-paused" }).waitFor();

    // What it does, as its page tells.
    await go(page, own, "by-form");
    await page.locator("dl dd", { hasText: /^[123], of/ }).first().waitFor();
    await page.locator("ol.events li", { hasText: "while-paused" }).first().waitFor();
    await page.getByRole("button", { name: "Test…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Test", exact: true }).click();
    await page.getByRole("dialog").getByText("Sent to main/ws").waitFor();
    await page.keyboard.press("Escape");

    // What is changed is changed and nothing else; and a fault that is folded away is unfolded.
    const { source: before } = await api(page, "GET", `/triggers/v2/triggers/${own.split("/").at(-1)}`);
    assert.equal(before.iotMessage.deviceId, "press-1");
    await page.getByRole("link", { name: "Edit" }).click();
    await page.getByLabel("Device", { exact: true }).locator("option", { hasText: "press-2" }).waitFor({ state: "attached" });
    await page.getByLabel("Batch size").fill("3");
    await page.getByLabel("Cutoff").fill("0.5");
    await page.getByText("Filter and transform").click();
    await page.getByLabel("Filter", { exact: true }).fill("true |");
    await page.getByText("Filter and transform").click();
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator(".field", { has: page.getByLabel("Filter", { exact: true }) }).locator(".wrong").filter({ hasText: /\S/ }).waitFor();
    await page.getByLabel("Filter", { exact: true }).fill(".details.payload != null");
    await page.getByRole("link", { name: "Audit log" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("3 events in 500 ms").waitFor();
    const { source: after } = await api(page, "GET", `/triggers/v2/triggers/${own.split("/").at(-1)}`);
    const batchSettings = { maxCount: "3", cutoff: "0.500s" };
    assert.deepEqual(after, { iotMessage: { ...before.iotMessage, batchSettings } });

    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByText("Paused", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByText("Active", { exact: true }).waitFor();
    await go(page, "#/audit", "Audit log");
    const created = page.getByRole("row", { name: /Create Trigger/ }).first();
    await created.getByText("After").click();
    await created.locator("pre", { hasText: "onerror" }).waitFor();

    await go(page, own, "by-form");
    await page.getByRole("button", { name: "Delete…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await page.getByText("There is no such trigger").or(page.getByRole("link", { name: "telemetry" })).first().waitFor();
    assert.equal(await page.getByRole("link", { name: "by-form" }).count(), 0);
    await page.done([400]);
  },

  /** Events that say odd things, and answers that cannot be read. */
  async odd() {
    const page = await open();
    await signIn(page);
    const jq = '(.details.payload | fromjson) as $said | {details: {odd: $said}, event_metadata: $said.about}';
    const target = { gatewayWebsocketBroadcast: { gatewayId: "main", path: "/other", serviceAccountId: "broadcaster" } };
    const made = await api(page, "POST", "/triggers/v2/triggers", {
      folderId: "default", name: "odd", source: { iotMessage: { registryId: "factory", mqttTopic: "$devices/+/events/odd", batchSettings: { maxCount: "1", cutoff: "0.1s" } } },
      action: [{ ...target, payloadEncoding: "TEXT", transformer: { jq } }, { ...target, payloadEncoding: "JSON" }],
    });
    await go(page, "#/tail/main/%2Fother", "Live tail");
    await page.getByText("Live", { exact: true }).waitFor();
    const rows = page.locator("ol.events li");
    for (const about of [null, "nothing", { created_at: "yesterday", event_type: 7 }, { event_id: { toString: 1 } }]) {
      await publish(JSON.stringify({ about, last: true }), "$devices/press-1/events/odd");
    }
    await until("all of them", async () => (await rows.count()) === 8);
    await rows.filter({ hasText: "yesterday" }).first().waitFor();
    // A number is shown as it was sent.
    await publish('{"large":12345678901234567890,"text":"\\"}{,"}', "$devices/press-1/events/odd");
    await rows.filter({ hasText: "/events/odd" }).filter({ hasText: "large" }).locator("summary").click();
    await page.locator("pre .json-value", { hasText: /^12345678901234567890$/ }).waitFor();
    await page.getByLabel("As sent").check();
    await page.locator("pre .json-value", { hasText: /^12345678901234567890$/ }).waitFor();
    await go(page, `#/triggers/${made.response.id}`, "odd");
    await rows.filter({ hasText: "yesterday" }).first().waitFor();
    await page.route("**/triggercast/v1/overview*", (route) => route.fulfill({ contentType: "text/html", body: "<p>Please sign in to the network" }));
    await go(page, "#/", "Overview");
    await page.getByText("The answer cannot be read.").waitFor();
    await page.unroute("**/triggercast/v1/overview*");
    await page.getByText("Everything works.").waitFor();
    // Deleted elsewhere, it is not shown as if it were there.
    await go(page, `#/triggers/${made.response.id}`, "odd");
    await api(page, "DELETE", `/triggers/v2/triggers/${made.response.id}`);
    await page.getByText("It was deleted.").waitFor();
    await page.done([404]);
  },

  /** What the file declares is not to be changed, and the words for that stand on the page. */
  async refused() {
    const page = await open();
    await page.getByLabel("IAM token").check();
    await page.getByLabel("Key or token").fill("not-the-key");
    await page.keyboard.press("Enter");
    await page.locator("p.alert").waitFor();
    assert.ok(await page.getByLabel("IAM token").isChecked());
    await page.getByLabel("API key", { exact: true }).check();
    await signIn(page);
    await go(page, "#/triggers/telemetry/edit", "Edit telemetry");
    await page.getByLabel("Description").fill("typed");
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator("p.alert", { hasText: "configuration file" }).waitFor();
    // Whose key is no longer known has to sign in again: over a page where something is typed.
    await page.evaluate(() => sessionStorage.setItem("triggercast.authorization", "Bearer gone"));
    await page.getByRole("button", { name: "Save" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Key or token").fill(key);
    await page.keyboard.press("Enter");
    await dialog.waitFor({ state: "detached" });
    assert.equal(await page.getByLabel("Description").inputValue(), "typed");
    await page.evaluate(() => (location.hash = "#/nothing/here"));
    await dialog.getByRole("button", { name: "Leave" }).click();
    await page.getByRole("heading", { name: "No such page" }).waitFor();
    await go(page, "#/triggers/nobody", "Not to be shown");
    await page.evaluate(() => sessionStorage.setItem("triggercast.authorization", "Bearer gone"));
    await page.evaluate(() => (location.hash = "#/triggers"));
    await page.getByRole("button", { name: "Sign in" }).waitFor();
    await page.locator("p.alert", { hasText: "token" }).waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await page.done([400, 401, 404]);
  },

  /** Signs in, finds a trigger and pauses it, all by keyboard. */
  async keyboard() {
    const page = await open();
    const focused = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent ?? "");
    const tabTo = async (name) => {
      for (let presses = 0; (await focused()) !== name; presses += 1) {
        assert.ok(presses < 40, `${name} is not reached; the focus is at ${await focused()}`);
        await page.keyboard.press("Tab");
        // Past the last one the focus is the browser's own.
        const isSeen = await page.evaluate(() => document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle !== "none");
        assert.ok(isSeen, `the focus at ${await focused()} is not to be seen`);
      }
    };
    await page.getByRole("button", { name: "Sign in" }).waitFor();
    await page.keyboard.type(key);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.keyboard.press("Shift+Tab");
    await tabTo("Triggers");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Triggers", level: 1 }).waitFor();
    await tabTo("Pause by-call");
    await page.keyboard.press("Enter");
    await page.getByText("Paused", { exact: true }).waitFor();
    assert.equal(await focused(), "Resume by-call", "the focus stays where it was");
    await page.keyboard.press("Enter");
    await page.getByText("Paused", { exact: true }).waitFor({ state: "detached" });
    await tabTo("Delete by-call");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    assert.equal(await focused(), "Cancel");
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    assert.equal(await focused(), "Delete by-call");
    await page.evaluate(() => document.body.focus());
    await page.getByText("Skip to content").focus();
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
    await page.done();
  },

  /** The chart moves with what is published. */
  async chart() {
    const page = await open();
    await signIn(page);
    const chart = page.locator("figure", { hasText: "Events per second" });
    await chart.locator("canvas").waitFor();
    const picture = () => chart.locator("canvas").evaluate((canvas) => canvas.toDataURL());
    const before = await picture();
    let sent = 0;
    await until("a rate", async () => {
      await publish(`{"n":${(sent += 1)}}`);
      return Number(await chart.locator("output").innerText()) > 0;
    });
    assert.notEqual(await picture(), before);
    assert.match(await chart.locator(".plot").getAttribute("aria-label"), /at most \d/);
    await page.getByText("Everything works.").waitFor();
    await page.getByRole("link", { name: "Tail main/ws" }).click();
    await page.locator("ol.events li").first().waitFor();
    await page.done();
  },

  /** Who is connected is listed, sent to, and closed. */
  async connections() {
    const page = await open();
    await signIn(page);
    const url = `${await gatewayOf(page)}/main/other`;
    const socket = new WebSocket(url);
    const got = [];
    socket.on("message", (data) => got.push(String(data)));
    const closed = new Promise((resolve) => socket.on("close", resolve));
    await new Promise((resolve) => socket.on("open", resolve));
    await go(page, "#/gateways/main", "main");
    const row = page.getByRole("row", { name: "/other" }).filter({ hasText: "127.0.0.1" });
    await row.getByRole("button", { name: /^Send to/ }).click();
    await page.getByLabel("Message").fill("grüße");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByText("It is sent.").waitFor();
    await page.getByRole("button", { name: "Broadcast to /other" }).click();
    await page.getByLabel("Message").fill("to all");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.getByText("On its way to 1 connection.").waitFor();
    await until("both messages", () => got.length === 2);
    assert.deepEqual(got, ["grüße", "to all"]);
    await row.getByRole("button", { name: /^Disconnect/ }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Disconnect" }).click();
    assert.equal(await closed, 1001);
    await row.waitFor({ state: "detached" });
    await page.done();
  },

  /** The demo needs no key, and comes back when it is cut off. */
  async demo() {
    const page = await open();
    await page.goto(`${base}demo`);
    await page.getByText("connected", { exact: true }).waitFor();
    await publish(EVIL);
    const cell = page.locator("#rows td", { hasText: "onerror" });
    await cell.first().waitFor();
    assert.equal(await cell.count(), 1);
    assert.equal(await page.locator("#rows img").count(), 0);
    await page.done();
  },

  /** Every page, in light and dark: nothing that keeps people out (axe), and nothing wider than a phone. */
  async pages() {
    const pages = [
      ["#/", "Overview"], ["#/triggers", "Triggers"], ["#/triggers/telemetry", "telemetry"], ["#/triggers/new", "Create trigger"],
      ["#/triggers/telemetry/edit", "Edit telemetry"],
      ["#/tail/main/%2Fws", "Live tail"], ["#/gateways", "Gateways"], ["#/gateways/main", "main"], ["#/devices", "Devices"],
      ["#/devices/factory", "factory"], ["#/containers", "Containers"], ["#/containers/images", "images"], ["#/audit", "Audit log"],
    ];
    await publish(EVIL);
    const first = await open();
    await signIn(first);
    const iotMessage = { registryId: "factory", deviceId: "press-2", batchSettings: { maxCount: "1", cutoff: "1s" } };
    const gatewayWebsocketBroadcast = { gatewayId: "main", path: "/other", serviceAccountId: "broadcaster" };
    const name = "x".repeat(63);
    const { response } = await api(first, "POST", "/triggers/v2/triggers", {
      folderId: "default", name, description: "y".repeat(200), source: { iotMessage }, action: [{ gatewayWebsocketBroadcast }],
    });
    pages.push([`#/triggers/${response.id}`, name]);
    await first.done();
    for (const [colorScheme, width] of [["light", 1280], ["dark", 390], ["dark", 1280], ["light", 390]]) {
      const page = await open({ colorScheme, reducedMotion: "reduce", viewport: { width, height: 800 } });
      const look = async (name) => {
        await page.getByText("Loading…").first().waitFor({ state: "detached" });
        const findings = await page.evaluate(`${axe.source}; axe.run().then((all) => all.violations
          .filter(({ impact }) => impact === "serious" || impact === "critical")
          .map(({ id, nodes }) => id + " " + nodes.map(({ target }) => target)))`);
        assert.deepEqual(findings, [], `${name} in ${colorScheme}, ${width} wide`);
        const over = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
        assert.ok(over <= 0, `${name} is ${over} pixels too wide for ${width}`);
      };
      await page.getByRole("button", { name: "Sign in" }).waitFor();
      await look("sign-in");
      await signIn(page);
      for (const [hash, heading] of pages) {
        await go(page, hash, heading);
        await look(heading);
      }
      await go(page, "#/devices", "Devices");
      await page.getByText(EVIL).waitFor();
      await page.goto(`${base}demo`);
      await page.getByText("connected", { exact: true }).waitFor();
      await look("demo");
      await page.done();
    }
  },

  /** Other pages are loaded when they are opened; what the first weighs is bounded in src/console/tests.rs. */
  async weight() {
    const page = await open();
    await signIn(page);
    const names = await page.evaluate(() => performance.getEntriesByType("resource").map(({ name }) => name));
    const pages = names.filter((name) => name.includes("/pages/")).map((name) => name.split("/").at(-1));
    assert.deepEqual(pages.sort(), ["overview.js", "sign_in.js"]);
    await page.done();
  },
};

try {
  for (const name of wanted) {
    await checks[name]();
    process.stdout.write(`ok ${name}\n`);
  }
} finally {
  await browser.close();
  await publisher.endAsync();
}
