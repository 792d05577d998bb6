
"use strict";
(() => {
  const FIRST = 2000, LONGEST = 60000, GROWTH = 1.5; // milliseconds; spread by up to a quarter, so that visitors do not ask as one
  const ends = document.querySelector("time");
  const waiting = document.querySelector(".waiting");
  // When this page asks after a known end: between two pages lies as much as the server spreads its other clients by.
  const late = Math.random() * Math.max(FIRST, 1000 * (ends?.dataset.jitter ?? 0));
  let pause = FIRST, timer = 0, asking = false;

  const show = (time) => {
    const end = new Date(time.dateTime), today = new Date();
    const sameDay = end.toDateString() === today.toDateString();
    const day = sameDay ? {} : { weekday: "long", day: "numeric", month: "long" };
    if (end.getFullYear() !== today.getFullYear()) day.year = "numeric";
    const format = new Intl.DateTimeFormat(navigator.languages, { ...day, hour: "numeric", minute: "2-digit", timeZoneName: "short" });
    time.textContent = format.format(end);
    time.lang = format.resolvedOptions().locale;
    time.dir = "auto";
  };

  // Whether the service is back. Asks for JSON, which is the smallest answer of a closed service, and reads no body.
  const isBack = async () => {
    const abort = new AbortController();
    const impatience = setTimeout(() => abort.abort(), 10000);
    try {
      const options = { headers: { Accept: "application/json" }, cache: "no-store", redirect: "manual", signal: abort.signal };
      const reply = await fetch(location.href, options);
      if (reply.type === "opaqueredirect") return true;
      // A 405 is the application's own, also while it is closed: this page answered a form that is sent with POST only.
      return !reply.headers.has("X-Maintenance-Mode") && reply.status < 500 && reply.status !== 405;
    } catch {
      return false;
    } finally {
      clearTimeout(impatience);
      abort.abort();
    }
  };

  const ask = async () => {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    const back = await isBack();
    asking = false;
    // Going there is a GET, where a reload would send a form a second time; but to an address with a fragment it goes nowhere.
    if (back) location.hash ? location.reload() : location.replace(location.href);
    else plan();
  };

  const plan = () => {
    const spread = pause * (1 + Math.random() / 4);
    const left = ends ? new Date(ends.dateTime) - Date.now() : -Infinity;
    timer = setTimeout(ask, spread < left || left + late <= 0 ? spread : left + late);
    pause = Math.min(pause * GROWTH, LONGEST);
  };

  if (ends) show(ends);
  if (waiting) {
    waiting.hidden = false;
    document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
    addEventListener("online", ask);
    plan();
  }
})();
