/* What htmx does not do by itself: scanning, clocks, dialogs, and noticing that the station is gone.
   Plain script: the page's Content-Security-Policy allows nothing inline. */
(() => {
  "use strict";
  const body = document.body;
  const $ = (id) => document.getElementById(id);
  let heard = performance.now();  // when the station last said something
  let ahead = Number(body.dataset.now) - Date.now() / 1000;  // the station's clock, of ours

  // --- scanning: a scanner types and presses Enter, faster than answers come ---------------------

  const scans = [];
  let scanning = false;

  body.addEventListener("submit", (event) => {
    if (event.target.id !== "scan") return;
    event.preventDefault();
    const field = $("scan-text");
    const text = field.value.trim();
    if (!text) return;
    const slot = event.target.querySelector("[name=slot]");
    scans.push({text, slot: slot ? slot.value : ""});
    field.value = "";
    if (slot) htmx.ajax("GET", "/scan-form", {target: "#scan", swap: "outerHTML"});
    if (!scanning) sendScans();
  });

  async function sendScans() {
    scanning = true;
    while (scans.length) {
      const scan = scans[0];
      try {
        await htmx.ajax("POST", "/scan", {values: scan, target: "#say", swap: "innerHTML"});
      } catch {  // nothing is lost: it stands there for Enter
        const field = $("scan-text");
        if (!field.value) { field.value = scan.text; field.select(); }
      }
      scans.shift();
    }
    scanning = false;
  }

  for (const failure of ["htmx:sendError", "htmx:timeout"]) {
    body.addEventListener(failure, (event) => {
      if (event.detail.requestConfig.verb === "get") return;
      const toast = document.createElement("p");
      toast.className = "toast bad";
      toast.textContent = body.dataset.notSent;
      $("say").replaceChildren(toast);
    });
  }

  // What is typed while no field has the focus belongs to the scan field. The focus is not taken
  // from buttons and links otherwise: people walk through the page by keyboard, too.
  document.addEventListener("keydown", (event) => {
    const field = $("scan-text");
    const busy = event.target.closest("input, textarea, select, dialog");
    if (!field || busy || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key.length === 1 && event.key !== " ") field.focus();
  });

  function backToScanning() {
    const field = $("scan-text");
    const on = document.activeElement;
    if (field && !$("dialog").open && (!on || on === body || on.closest(".actions"))) {
      field.focus({preventScroll: true});
    }
  }

  // --- buttons, dialogs, menus, messages ---------------------------------------------------------

  body.addEventListener("htmx:afterRequest", (event) => {
    const from = event.detail.elt;
    if (event.detail.successful && from.closest("dialog")) $("dialog").close();
    if (event.detail.successful && from.closest(".actions") && event.detail.requestConfig.verb === "post") {
      closeMenus();
      if (!matchMedia("(pointer: coarse)").matches) backToScanning();
    }
  });

  body.addEventListener("htmx:afterSwap", (event) => {
    const into = event.detail.target || event.target;
    if (into.id === "dialog" && !into.open) into.showModal();
    if (into.id === "scan") $("scan-text").focus();
  });

  const dialog = $("dialog");
  if (dialog) dialog.addEventListener("close", () => { dialog.replaceChildren(); backToScanning(); });

  body.addEventListener("click", (event) => {
    const close = event.target.closest(".close");
    if (close && close.closest("dialog")) close.closest("dialog").close();
    else if (close) close.closest(".toast").remove();
    closeMenus(event.target.closest(".menu summary")?.parentElement);
  });

  body.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const menu = document.querySelector(".menu[open]");
    if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
    else $("say").replaceChildren();
  });

  body.addEventListener("toggle", (event) => {
    const menu = event.target;
    if (menu.open && menu.matches(".menu")) closeMenus(menu);
  }, true);

  function closeMenus(but) {
    for (const menu of document.querySelectorAll(".menu[open]")) if (menu !== but) menu.open = false;
  }

  // The other reason is meant by who writes one.
  body.addEventListener("input", (event) => {
    if (event.target.name !== "other") return;
    for (const radio of event.target.form.querySelectorAll("[name=reason]")) {
      if (event.target.value) radio.checked = false;
    }
  });

  for (const image of document.querySelectorAll(".label img")) {
    const missing = () => image.closest(".label").classList.add("none");
    image.addEventListener("error", missing);
    if (image.complete && !image.naturalWidth) missing();
  }

  // --- clocks ------------------------------------------------------------------------------------

  function tick(within = document) {
    const now = Date.now() / 1000 + ahead;
    for (const shown of within.querySelectorAll("[data-since]")) {
      const s = Math.max(0, Math.floor(now - Number(shown.dataset.since)));
      const text = `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
      if (shown.textContent !== text) shown.textContent = text;
    }
  }
  setInterval(() => tick(), 1000);
  tick();

  // --- is the station there? ---------------------------------------------------------------------

  if (!document.querySelector("[sse-connect]")) return;
  const patience = 3 * 1000 * Number(body.dataset.beat);
  let lost = false, asked = 0;

  body.addEventListener("htmx:sseBeforeMessage", (event) => {
    heard = performance.now();
    asked = 0;
    setLost(false);
    const into = event.target.dataset;
    if (into.version) {  // what it shows already is left alone, with what is pressed or focused
      if (into.version === event.detail.lastEventId) event.preventDefault();
      into.version = event.detail.lastEventId;
    }
    if (event.detail.type === "beat") ahead = Number(event.detail.data) - Date.now() / 1000;
    if (event.detail.type === "hello" && event.detail.data !== body.dataset.start) location.reload();
  });
  body.addEventListener("htmx:sseMessage", (event) => {
    if (event.detail.type.startsWith("t-")) tick(event.target);
  });
  body.addEventListener("htmx:sseError", () => setLost(true));

  function setLost(now) {
    if (now === lost) return;
    lost = now;
    body.classList.toggle("lost", lost);
    $("lost").hidden = !lost;
    const since = $("lost-since");
    if (lost) since.textContent = `${since.dataset.word} ${new Date().toLocaleTimeString("en-GB")}`;
  }

  setInterval(async () => {
    if (performance.now() - heard > patience) setLost(true);
    if (!lost) return;
    try {  // the stream comes back by itself, but not when we must log in again
      const answer = await fetch("/alive", {cache: "no-store"});
      const other = answer.ok && (await answer.text()) !== body.dataset.start;
      if (answer.status === 401 || other || (answer.ok && ++asked > 3)) location.reload();
    } catch { /* still gone */ }
  }, 2000);
})();
