// Signing in: with an API key, such as the administrator's, or an IAM token.

import { el, field, show } from "../dom.js";
import { call, session } from "../api.js";
import { trouble } from "../show.js";

/** The form. `leave`, a button, takes the place of what is said to those who come: for a dialog over a page. */
export function signIn(page, enter, leave = null) {
  if (!leave) document.title = "Sign in · Triggercast";
  const radio = (value, text, checked) =>
    el("label", el("input", { type: "radio", name: "kind", value, checked }), text);
  const secret = el("input", { type: "password", autocomplete: "current-password", spellcheck: "false", required: true, autofocus: leave !== null });
  const place = field("Key or token", secret, { hint: "The administrator's key is in data_dir/admin.key. It stays in this tab and is forgotten with it." });
  const wrong = el("div");
  const send = el("button.main", { type: "submit" }, "Sign in");

  const onsubmit = async (event) => {
    event.preventDefault();
    const text = secret.value.trim();
    place.complain(text ? (/^[\x21-\x7e]+$/.test(text) ? "" : "A key or token has no spaces and no letters beyond ASCII.") : "Put the key in here.");
    if (secret.getAttribute("aria-invalid")) return secret.focus();
    send.disabled = true;
    const authorization = `${form.elements.kind.value} ${text}`;
    try {
      await call("GET", "/triggers/v2/triggers", { query: { folderId: session.folder, pageSize: 1 }, signal: page.signal, authorization });
    } catch (error) {
      // Whoever may not see triggers may see other things.
      if (error.status !== 403 && error.status !== 404) {
        send.disabled = false;
        if (!form.isConnected) return;
        show(wrong, trouble(error));
        return secret.focus();
      }
    }
    session.signIn(authorization);
    enter();
  };
  const kinds = el("fieldset.choice", el("legend", "Sign in with"), radio("Api-Key", "API key", true), radio("Bearer", "IAM token"));
  const form = leave ? el("form", kinds, place, wrong, el("div.buttons", leave, send)) : el("form.card.sign-in",
    el("img", { src: "icon.svg", alt: "", width: 48, height: 48 }),
    el("h1", "Triggercast"),
    el("p.muted", "Events from devices to people's screens."),
    kinds, place, wrong, send,
    el("p.muted", "No key at hand? ", el("a", { href: "demo" }, "See the demo page"), ", which needs none."));
  form.onsubmit = onsubmit;
  form.noValidate = true;
  return form;
}
