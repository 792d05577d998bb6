
"use strict";
(() => {
  const SILENCE = 6000, RETRY = 400, LONGEST_RETRY = 5000; // milliseconds; the server sends something every two seconds
  const by = (id) => document.getElementById(id);
  let dashboard = null, came = 0, heard = 0, source = null, pause = RETRY, retrying = 0, component = null, said = "";

  // -- words ---------------------------------------------------------------------------------------------------------

  const serverNow = () => Date.parse(dashboard.state.now) + performance.now() - came;
  const sinceCame = () => (performance.now() - came) / 1000;
  const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

  const length = (seconds) => {
    const s = Math.max(0, Math.round(seconds)), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
    if (m < 1) return `${s} s`;
    if (h < 1) return m < 10 && s % 60 ? `${m} min ${s % 60} s` : `${m} min`;
    if (d < 1) return m % 60 ? `${h} h ${m % 60} min` : `${h} h`;
    return h % 24 ? `${d} d ${h % 24} h` : `${d} d`;
  };

  const clock = (time) => {
    const then = new Date(time), sameDay = then.toDateString() === new Date().toDateString();
    const day = sameDay ? {} : { weekday: "short", day: "numeric", month: "short" };
    if (then.getFullYear() !== new Date().getFullYear()) day.year = "numeric";
    return new Intl.DateTimeFormat(navigator.languages, { ...day, hour: "2-digit", minute: "2-digit" }).format(then);
  };

  const moment = (time) => {
    const away = (Date.parse(time) - serverNow()) / 1000;
    return `${clock(time)} (${away > 0 ? `in ${length(away)}` : `${length(-away)} ago`})`;
  };

  // enable_maintenance overrides the switch, but no hold.
  const overridden = () => dashboard.override !== null && dashboard.state.decided_by !== "hold";

  const statusOf = (report) => overridden() ? (dashboard.override ? "closed" : "open") : report.enabled === null ? "unknown" : !report.enabled ? "open" : report.state.mode === "read-only" ? "read-only" : "closed";
  const HEADINGS = { open: "Open", closed: "Closed for maintenance", "read-only": "Read-only", unknown: "Unknown" };

  // -- parts of the page ---------------------------------------------------------------------------------------------

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const cell = (content, className = "") => make("td", { className }, content);

  const chip = (word) => {
    const element = make("span", { className: "chip" }, word);
    element.dataset.is = word;
    return element;
  };

  // Keep the element of an unchanged entry, so that nothing moves or loses the focus.
  const fill = (body, entries, row, onTurn) => {
    const before = new Map([...body.rows].map((element) => [element.dataset.key, element]));
    const after = entries.map((entry) => {
      const key = entry.id ?? entry.name, looks = JSON.stringify(entry), known = before.get(key);
      if (known?.dataset.looks === looks) return known;
      const element = row(entry);
      element.dataset.key = key;
      element.dataset.looks = looks;
      if (known && onTurn?.(JSON.parse(known.dataset.looks), entry)) element.classList.add("turned");
      return element;
    });
    if (after.length !== body.rows.length || after.some((element, index) => body.rows[index] !== element)) body.replaceChildren(...after);
  };

  const table = (name, entries, row, onTurn) => {
    by(`${name}-table`).hidden = entries.length === 0;
    by(`${name}-none`).hidden = entries.length > 0;
    fill(by(name), entries, row, onTurn);
  };

  const workerRow = (worker) => {
    const vanished = worker.status === "vanished", lost = worker.fenced ? "closed itself" : "may still serve";
    const applied = make("span", { className: worker.applied && !vanished ? "" : "behind" }, vanished ? lost : worker.applied ? "✓ yes" : "not yet");
    if (worker.why_not_gone) applied.append(make("small", { className: "why" }, worker.why_not_gone));
    const inFlight = [[worker.http, "request"], [worker.websockets, "WebSocket"]].filter(([count]) => count).map(([count, noun]) => plural(count, noun));
    return make("tr", {}, cell(worker.host), cell(String(worker.pid)), cell(worker.delivery, "lesser"), cell(chip(worker.status)), cell(applied),
      cell(inFlight.join(", ") || "0", "number"));
  };

  const lease = (hold) => hold.lease === null ? "until its process ends" : length(hold.lease - sinceCame());

  const holdRow = (hold) => {
    const says = make("span", {}, chip(hold.enabled ? "on" : "off"), hold.component ? ` ${hold.component}` : hold.enabled && hold.mode !== "full" ? ` ${hold.mode}` : "");
    return make("tr", {}, cell(says), cell(hold.by ?? hold.id), cell(hold.reason ?? "–"), cell("", "number lease"));
  };

  const componentRow = (part) => {
    const word = part.enabled === null ? "unknown" : part.enabled ? "closed" : "open";
    const button = make("button", { type: "button", className: "small" }, part.has_own_switch ? "Turn off…" : "Turn on…");
    button.setAttribute("aria-label", `Turn maintenance ${part.has_own_switch ? "off" : "on"} for ${part.name}`);
    button.onclick = () => part.has_own_switch ? askOff(part.name) : askOn(part.name);
    return make("tr", {}, cell(part.name), cell(chip(word)), cell(part.decided_by ?? "–", "lesser"), cell(button));
  };

  const bypassRow = (bypass) => {
    const button = make("button", { type: "button", className: "small" }, "Revoke");
    button.setAttribute("aria-label", `Revoke the link for ${bypass.note ?? bypass.id}`);
    button.onclick = async () => {
      button.disabled = true;
      await send("DELETE", `bypasses/${encodeURIComponent(bypass.id)}`, null, say);
      button.disabled = false;
    };
    return make("tr", {}, cell(bypass.note ?? bypass.id), cell(clock(bypass.until)), cell(button));
  };

  const WHAT = {
    set: (on, change) => on === "on" && change.was_on ? "changed" : `turned ${on}`, noticed: (on, change) => change.error ? "set to an invalid value" : `turned ${on} by hand`, expired: () => "expired", cleared: () => "everything cleared", taken: (on) => `hold acquired: ${on}`,
    released: () => "hold released", lapsed: () => "hold expired", restored: (on) => `restored: ${on}`, lost: () => "lost: Redis lost its data",
  };

  const SEEN = new Set(["noticed", "expired", "lapsed"]); // by a worker that did not cause it

  // Whether the switch was on before each change, as far back as the list goes.
  const withBefore = (changes) => changes.map((change, index) => {
    const before = changes.slice(index + 1).find((earlier) => earlier.component === change.component && !earlier.hold);
    return { ...change, was_on: before?.state?.enabled ?? false };
  });

  const changeRow = (change) => {
    const on = !change.state ? "off" : change.state.starts_at && Date.parse(change.state.starts_at) > Date.parse(change.at) ? "on later" : change.state.enabled ? "on" : "off";
    const what = (WHAT[change.kind] ?? (() => change.kind))(on, change) + (change.component ? ` (${change.component})` : "");
    const place = change.host ? `${change.host}:${change.pid}` : "–", process = SEEN.has(change.kind) && change.host ? `seen by ${place}` : place;
    return make("tr", {}, cell(clock(change.at)), cell(what), cell(change.by ?? process), cell(change.state?.reason ?? change.error ?? "–", "lesser"));
  };

  // -- what is true now ----------------------------------------------------------------------------------------------

  const facts = (report) => {
    const state = report.enabled && !overridden() ? report.state : null, found = [];
    if (overridden()) found.push(["Decided by", `enable_maintenance=${dashboard.override ? "True" : "False"}, which overrides the switch`]);
    if (state?.reason) found.push(["Reason", state.reason]);
    if (state?.message) found.push(["Message", state.message]);
    if (report.decided_by === "hold") found.push(["Decided by", plural(report.holds.length, "hold")]);
    if (state?.by) found.push(["By", state.by]);
    if (state?.since) found.push(["Since", moment(state.since)]);
    if (state?.ends_at) found.push(["Until", moment(state.ends_at)]);
    if (state?.allow) found.push(["Allowed", state.allow.join(", ")]);
    if (report.upcoming) found.push(["Begins", moment(report.upcoming.starts_at)]);
    if (report.upcoming?.ends_at) found.push(["Ends", moment(report.upcoming.ends_at)]);
    if (report.upcoming && report.switch?.reason) found.push(["Reason", report.switch.reason]);
    if (report.decided_by === "hold" && report.switch?.enabled && !report.enabled) found.push(["Switch", "on, lifted by a hold"]);
    return found;
  };

  const progress = () => {
    const live = (dashboard.workers ?? []).filter((worker) => worker.status !== "vanished"), vanished = (dashboard.workers ?? []).length - live.length;
    if (!live.length || dashboard.state.enabled === null) return "";
    const followed = live.filter((worker) => worker.applied).length, busy = live.reduce((sum, worker) => sum + worker.http + worker.websockets, 0);
    const parts = [followed === live.length ? `${live.length === 1 ? "The only worker is" : `All ${live.length} workers are`} up to date` : `${followed} of ${live.length} workers are up to date`];
    if (dashboard.state.enabled) parts.push(busy ? `${plural(busy, "request")} in flight` : live.every((worker) => worker.status === "drained") ? "no request in flight" : "draining");
    if (vanished) parts.push(`${plural(vanished, "worker")} vanished`);
    return parts.join(" · ");
  };

  const say = (text) => { if (text !== said) by("said").textContent = said = text; };

  const paint = () => {
    const report = dashboard.state, is = statusOf(report);
    by("now").dataset.is = is;
    const heading = is === "unknown" && report.error ? "The switch cannot be read" : HEADINGS[is];
    by("word").textContent = heading;
    document.title = `${heading} – Maintenance`;
    by("where").textContent = report.backend.url + (dashboard.operator ? ` · ${dashboard.operator}` : "");
    by("progress").textContent = progress();
    const trouble = dashboard.last_error ? `${dashboard.last_error} This worker shows its last known state and ${dashboard.closed ? "is closed" : "serves requests"} (${dashboard.source}).` : report.error ? `${report.error} Workers keep their last known state.` : report.switch?.ignored.length ? `Ignored details of the switch: ${report.switch.ignored.join("; ")}.` : dashboard.warnings.join(" ");
    by("trouble").hidden = !trouble;
    by("trouble").textContent = trouble ?? "";
    by("buttons").hidden = false;
    const switched = report.switch?.enabled ?? false, over = switched && !report.upcoming && !report.enabled && report.decided_by === "switch";
    by("turn-on").hidden = switched && !over;
    by("turn-off").hidden = !(switched && !over) && !report.enabled && !report.error;
    by("turn-off").textContent = report.upcoming ? "Cancel the window…" : "Turn off…";
    by("change").hidden = !switched || over;
    const workers = dashboard.workers ?? [];
    by("workers-count").textContent = workers.filter((worker) => worker.status !== "vanished").length || "";
    by("workers-none").textContent = dashboard.workers ? "No worker has registered." : dashboard.last_error ? "Unknown: the backend cannot be reached." : "This backend has no registry of workers; Redis has.";
    const around = [...new Set(workers.flatMap((worker) => worker.unrouted))].sort();
    by("around").hidden = !around.length;
    by("around").textContent = `Ways around the gate: ${around.join(", ")}. No route has these paths; a middleware inside the application answered them while closed. Close them with unknown_routes="refuse".`;
    table("workers", workers, workerRow, (old, now) => old.status !== now.status || (now.applied && !old.applied));
    const holds = report.holds ?? [];
    by("holds-count").textContent = holds.length || "";
    by("holds-none").textContent = report.holds ? "No active holds." : "The holds cannot be read.";
    table("holds", holds.map((hold) => ({ ...hold, lease: undefined })), holdRow);
    by("components-section").hidden = dashboard.components.length === 0;
    fill(by("components"), dashboard.components, componentRow);
    by("bypasses-section").hidden = !dashboard.grants_bypasses && dashboard.bypasses.length === 0;
    by("bypasses-none").textContent = "A link lets a tester in while the switch is on.";
    table("bypasses", dashboard.bypasses, bypassRow);
    by("let-in").hidden = !dashboard.grants_bypasses;
    by("let-in").disabled = !switched;
    by("history-section").hidden = dashboard.history === null;
    table("history", withBefore(dashboard.history ?? []), changeRow);
    tick();
    say([heading, progress()].filter(Boolean).join(". "));
  };

  // Update what changes with time alone.
  const tick = () => {
    if (!dashboard) return;
    const list = facts(dashboard.state).flatMap(([name, value]) => [["dt", name], ["dd", value]]), looks = JSON.stringify(list);
    if (by("facts").dataset.looks !== looks) {
      by("facts").dataset.looks = looks;
      by("facts").replaceChildren(...list.map(([tag, text]) => make(tag, {}, text)));
    }
    const leases = new Map((dashboard.state.holds ?? []).map((hold) => [hold.id, lease(hold)]));
    for (const row of by("holds").rows) row.querySelector(".lease").textContent = leases.get(row.dataset.key) ?? "";
  };

  // -- hearing of changes --------------------------------------------------------------------------------------------

  const listen = () => {
    clearTimeout(retrying);
    source?.close();
    if (document.hidden) return;
    const current = source = new EventSource("events");
    heard = performance.now();
    current.onmessage = (event) => {
      dashboard = JSON.parse(event.data);
      came = heard = performance.now();
      pause = RETRY;
      by("link").dataset.is = "live";
      by("link").textContent = "Live";
      paint();
    };
    // Streams end every minute. The browser itself would wait for seconds, and for ever after a 401 or 502.
    current.onerror = () => {
      if (current !== source) return;
      current.close();
      retrying = setTimeout(listen, pause);
      pause = Math.min(LONGEST_RETRY, pause * 1.6);
    };
  };

  // After a sleep, timers and the stream may both be dead: connect again.
  const wake = () => {
    if (document.hidden) {
      source?.close();
      document.title = "Maintenance";
    } else listen();
  };

  setInterval(() => {
    tick();
    if (document.hidden) return;
    const silent = performance.now() - came;
    if (silent > SILENCE / 2) {
      by("link").dataset.is = "lost";
      by("link").textContent = came ? `Not connected for ${length(silent / 1000)}` : "Connecting…";
    }
    if (performance.now() - heard > SILENCE) listen();
  }, 1000);
  document.addEventListener("visibilitychange", wake);
  addEventListener("pageshow", (event) => { if (event.persisted) wake(); });
  addEventListener("online", wake);

  // -- changing it ---------------------------------------------------------------------------------------------------

  // Return the answer, or null after calling `complain` with the reason.
  const send = async (method, path, body, complain, etag) => {
    try {
      const headers = { "Content-Type": "application/json", ...(etag ? { "If-Match": etag } : {}) };
      const reply = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(15000) });
      const answer = reply.status === 204 ? {} : await reply.json().catch(() => ({}));
      if (reply.ok) return answer;
      const detail = Array.isArray(answer.detail) ? answer.detail.map((problem) => problem.msg).join("; ") : answer.detail;
      complain(detail || `The server answered with status ${reply.status}.`);
    } catch (error) {
      complain(error.name === "TimeoutError" ? "The server did not answer in time. Check the state before you try again." : "The server cannot be reached.");
    }
    return null;
  };

  const where = () => component === null ? "switch" : `switch?component=${encodeURIComponent(component)}`;

  const form = (name, submit) => {
    const dialog = by(name), element = dialog.querySelector("form"), error = by(`${name}-error`);
    element.onsubmit = async (event) => {
      event.preventDefault();
      error.textContent = "";
      by(`${name}-go`).disabled = true;
      const done = await submit(element.elements, (text) => { error.textContent = text; });
      by(`${name}-go`).disabled = false;
      if (done) dialog.close();
    };
    dialog.querySelector("[data-closes]").onclick = () => dialog.close();
    return { dialog, element, fields: element.elements, error };
  };

  const local = (time) => {
    const shifted = new Date(time.getTime() - time.getTimezoneOffset() * 60000);
    return shifted.toISOString().slice(0, 16);
  };

  // Read the times of the form; `problem` says what is wrong.
  const planned = (fields) => {
    const begins = fields.begins.value === "at" ? new Date(fields.starts_at.value) : null, from = begins ?? new Date(serverNow());
    const ends = { never: () => null, after: () => new Date(from.getTime() + fields.lasts.value * 1000), at: () => new Date(fields.ends_at.value) }[fields.ends.value]();
    let problem = "";
    if (begins && isNaN(begins)) problem = "Enter when it begins.";
    else if (ends && isNaN(ends)) problem = "Enter when it ends.";
    else if (ends && ends <= from) problem = "The end must be after the beginning.";
    return { begins, ends, problem };
  };

  const summarise = () => {
    const { begins, ends, problem } = planned(setting.fields), later = begins && begins > serverNow();
    const whole = component === null ? "Every worker" : `For ${component}, every worker`;
    const refuses = setting.fields.mode.value === "full" ? "answers 503" : "refuses writes";
    const until = ends ? `until ${clock(ends)}` : "until it is turned off";
    const opens = later && component === null && dashboard.state.enabled && dashboard.state.decided_by === "switch" ? " Maintenance is on now; until then it would be off." : "";
    by("set-summary").textContent = problem || `${whole} ${refuses} from ${later ? clock(begins) : "now"} ${until}.${opens}`;
    by("set-go").textContent = later ? "Schedule" : setting.changes ? "Apply" : "Turn on";
  };

  const setting = form("set", async (fields, complain) => {
    const { begins, ends, problem } = planned(fields);
    if (problem) return complain(problem);
    const { since, retry_after, allow, bypass } = (setting.changes && dashboard.state.switch) || {};
    const state = {
      enabled: true, mode: fields.mode.value, reason: fields.reason.value.trim() || null, message: fields.message.value.trim() || null,
      starts_at: begins?.toISOString() ?? null, ends_at: ends?.toISOString() ?? null, since: since ?? null, retry_after: retry_after ?? null,
      allow: allow ?? null, bypass: bypass ?? null,
    };
    return send("PUT", where(), state, complain, setting.etag);
  });
  setting.element.oninput = summarise;
  for (const [field, choice] of [["starts_at", "begins"], ["ends_at", "ends"]]) {
    setting.fields[field].onfocus = () => { setting.fields[choice].value = "at"; summarise(); };
  }
  setting.fields.lasts.onfocus = () => { setting.fields.ends.value = "after"; summarise(); };

  const askOn = (part = null, changed = null) => {
    component = part;
    setting.etag = dashboard.etag;
    setting.changes = changed !== null;
    setting.element.reset();
    setting.error.textContent = "";
    const fields = setting.fields, soon = new Date(Math.ceil((Date.now() + 300000) / 300000) * 300000);
    fields.starts_at.value = local(changed?.starts_at ? new Date(changed.starts_at) : soon);
    fields.ends_at.value = local(changed?.ends_at ? new Date(changed.ends_at) : new Date(soon.getTime() + 3600000));
    if (changed) {
      fields.reason.value = changed.reason ?? "";
      fields.message.value = changed.message ?? "";
      fields.mode.value = changed.mode;
      fields.begins.value = changed.starts_at ? "at" : "now";
      fields.ends.value = changed.ends_at ? "at" : "never";
    }
    by("set-title").textContent = changed ? "Change this maintenance" : part === null ? "Turn maintenance on" : `Turn maintenance on for ${part}`;
    summarise();
    setting.dialog.showModal();
  };

  const turning = form("off", (fields, complain) => {
    const end = fields.end_holds.checked ? "?end_holds=true" : "";
    return send("DELETE", where() + end, null, complain, turning.etag);
  });

  // Explain what turning off does, holds considered.
  const foretell = () => {
    const holds = dashboard.state.holds ?? [], closing = holds.filter((hold) => hold.enabled), alone = component === null && !turning.fields.end_holds.checked;
    by("off-text").textContent = component !== null ? "The general switch applies to it again."
      : alone && closing.length ? `The switch is turned off, but ${closing.length === 1 ? "a hold keeps" : `${closing.length} holds keep`} the service closed.`
      : dashboard.state.upcoming ? "Maintenance will not begin."
      : alone || !holds.length ? "Every worker serves requests again." : "Every worker serves requests again. Make sure that no migration is still running under a hold.";
  };

  turning.element.oninput = foretell;

  const askOff = (part = null) => {
    component = part;
    turning.etag = dashboard.etag;
    turning.element.reset();
    turning.error.textContent = "";
    const { holds, upcoming } = dashboard.state, count = holds?.length ?? 0;
    by("off-title").textContent = part === null ? (upcoming ? "Cancel the window?" : "Turn maintenance off?") : `Turn maintenance off for ${part}?`;
    by("off-go").textContent = upcoming && part === null ? "Cancel the window" : "Turn off";
    by("off-holds").hidden = part !== null || !count;
    by("off-holds-text").textContent = `Also end ${count === 1 ? "the hold" : `all ${count} holds`}: ${(holds ?? []).map((hold) => hold.reason ?? hold.by ?? hold.id).join(", ")}`;
    foretell();
    turning.dialog.showModal();
  };

  const letting = form("let", async (fields, complain) => {
    const made = await send("POST", "bypasses", { lasting: Number(fields.lasting.value), note: fields.note.value.trim() || null }, complain);
    if (!made) return;
    by("let-made").hidden = false;
    fields.link.value = new URL(made.link, location.href).href; // the page lies beside what answered
    fields.link.focus();
    fields.link.select();
    by("let-go").hidden = true;
  });

  by("turn-on").onclick = () => askOn();
  by("turn-off").onclick = () => askOff();
  by("change").onclick = () => askOn(null, dashboard.state.switch);
  by("let-in").onclick = () => {
    letting.element.reset();
    letting.error.textContent = "";
    by("let-made").hidden = true;
    by("let-go").hidden = false;
    letting.dialog.showModal();
  };

  listen();
})();
