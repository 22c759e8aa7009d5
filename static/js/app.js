/* What the pages do beyond plain HTML. Each part works alone, by delegation, so that swapped parts need no set-up.
   Without this file every page still reads and every form still posts. */
(() => {
  const on = (type, listener, capture = false) => document.addEventListener(type, listener, capture);

  /* -- Typed confirmation: the button is off until all is right, and says what is missing ------------------------- */

  function missingOf(form) {
    const missing = [];
    for (const control of form.elements) {
      const { word, missing: text } = control.dataset;
      if (word !== undefined ? control.value !== word : control.required && !control.validity.valid) {
        missing.push(text || `fill in “${control.labels?.[0]?.textContent.trim() || control.name}”`);
      }
    }
    for (const group of form.querySelectorAll("[data-some]")) {
      if (!group.querySelector(":checked")) missing.push(group.dataset.some);
    }
    return [...new Set(missing)];
  }

  function weigh(form) {
    const missing = missingOf(form);
    for (const button of form.querySelectorAll("[data-confirm-button]")) {
      button.disabled = missing.length > 0 || form.dataset.sent === "yes";
    }
    for (const line of form.querySelectorAll("[data-confirm-missing]")) {
      const text = missing.length ? `Still missing: ${missing.join("; ")}.` : "";
      if (line.textContent !== text) line.textContent = text;
    }
  }

  const weighAll = () => document.querySelectorAll("form[data-confirm]").forEach(weigh);

  on("input", (event) => {
    const form = event.target.form;
    if (form?.matches("[data-confirm]")) weigh(form);
  });
  on("change", weighAll);

  /* -- A form is sent once, however often it is clicked ----------------------------------------------------------- */

  function release(form) {
    delete form.dataset.sent;
    form.removeAttribute("aria-busy");
  }

  on("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    if (form.dataset.sent === "yes") {
      event.preventDefault();
      event.stopImmediatePropagation();
      return;
    }
    form.dataset.sent = "yes";
    form.setAttribute("aria-busy", "true");
  }, true);
  /* Somebody stopped it after all (a question answered with no, a browser's own check). */
  on("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented && !form.closest("[hx-boost],[hx-post]")) release(form);
  });
  on("htmx:confirm", (event) => {
    if (event.detail.question && !window.confirm(event.detail.question)) {
      event.preventDefault();
      const form = event.target.closest?.("form");
      if (form) release(form);
    } else if (event.detail.question) {
      event.preventDefault();
      event.detail.issueRequest(true);
    }
  });
  on("htmx:afterRequest", (event) => {
    const form = event.target.closest?.("form");
    if (form && !isField(event.detail.elt)) release(form);
  });
  /* A field is checked as somebody types, but no longer once its form is on its way. */
  const isField = (element) => element?.matches?.("input, select, textarea");
  on("htmx:beforeRequest", (event) => {
    if (isField(event.detail.elt) && event.detail.elt.form?.dataset.sent === "yes") event.preventDefault();
  });
  /* The browser's back button shows the page as it was left. */
  window.addEventListener("pageshow", () => {
    document.querySelectorAll("form[data-sent]").forEach(release);
    weighAll();
  });

  /* -- What was filled in outlives a session that ended before it was sent: in this tab, for the same person -------- */

  const KEPT = "kept-form";
  const here = () => window.location.pathname + window.location.search;
  const isKept = (control) => control.name && control.type !== "hidden" && control.dataset.word === undefined;
  const ticks = (control) => control.type === "checkbox" || control.type === "radio";

  on("submit", (event) => {
    const form = event.target;
    if (!form.matches("[data-confirm]") || event.defaultPrevented) return;
    const fields = [...form.elements].filter((each) => isKept(each) && (!ticks(each) || each.checked)).map((each) => [each.name, each.value]);
    try {
      sessionStorage.setItem(KEPT, JSON.stringify({ page: here(), person: document.body.dataset.person, fields }));
    } catch { /* No room, or not allowed: then it is not kept. */ }
  });

  function bringBack() {
    const { person } = document.body.dataset;
    const kept = sessionStorage.getItem(KEPT);
    /* Without a person it is the sign-in page, on the way back. */
    if (!person || !kept) return;
    sessionStorage.removeItem(KEPT);
    const { page, person: whose, fields } = JSON.parse(kept);
    const form = document.querySelector("form[data-confirm]");
    /* A form that came back from the server holds what was sent, with what is wrong beside it. */
    if (page !== here() || whose !== person || !form || document.querySelector("[aria-invalid]")) return;
    for (const control of [...form.elements].filter(isKept)) {
      const found = fields.filter(([name]) => name === control.name).map(([, value]) => value);
      if (ticks(control)) control.checked = found.includes(control.value);
      else if (found.length) [control.value] = found;
      for (let part = touched(control) && control.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
    }
  }

  /* -- NULL ticks: typing takes one away; ticking puts the value back as it came, and takes what was typed along ----- */

  function asItCame(control) {
    if (!(control instanceof HTMLSelectElement)) return control.defaultValue;
    return ([...control.options].find((option) => option.defaultSelected) || control.options[0])?.value ?? "";
  }

  on("input", ({ target }) => {
    const tick = target.id && document.querySelector(`[data-null-of="${CSS.escape(target.id)}"]`);
    if (tick) tick.checked = false;
  }, true);
  /* Before htmx sends what is typed to be checked. */
  on("change", ({ target }) => {
    const control = target.dataset.nullOf && document.getElementById(target.dataset.nullOf);
    if (!control) return;
    if (target.checked) {
      target.dataset.typed = control.value;
      control.value = asItCame(control);
    } else if (target.dataset.typed !== undefined) control.value = target.dataset.typed;
  }, true);

  /* -- A field that was checked as somebody typed says to screen readers whether it is wrong ------------------------- */

  on("htmx:afterSettle", ({ target }) => {
    if (!target.matches?.(".field-state")) return;
    const control = document.querySelector(`[aria-describedby~="${CSS.escape(target.id)}"]`);
    if (target.querySelector(".field-errors")) control?.setAttribute("aria-invalid", "true");
    else control?.removeAttribute("aria-invalid");
  });

  /* -- Menus close when something else is clicked, and by Escape -------------------------------------------------- */

  function closeMenus(except) {
    for (const menu of document.querySelectorAll("details[data-menu][open]")) {
      if (!menu.contains(except)) menu.open = false;
    }
  }
  on("click", (event) => closeMenus(event.target));
  on("keydown", (event) => {
    if (event.key !== "Escape") return;
    const menu = document.activeElement?.closest("details[data-menu][open]");
    closeMenus(null);
    menu?.querySelector("summary").focus();
  });

  /* -- On paper nothing is folded away ---------------------------------------------------------------------------- */

  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details.more:not([open])")) {
      part.dataset.folded = "";
      part.open = true;
    }
  });
  window.addEventListener("afterprint", () => {
    for (const part of document.querySelectorAll("details[data-folded]")) {
      delete part.dataset.folded;
      part.open = false;
    }
  });

  /* -- A lost connection is told, and so is its return ------------------------------------------------------------ */

  const notice = (name) => document.querySelector(`[data-notice-${name}]`);
  let lost = false;

  function say(name, text, tone = "") {
    const place = notice(name);
    if (!place || place.textContent === text) return;
    place.textContent = text;
    place.dataset.tone = tone;
  }

  function connectionLost() {
    lost = true;
    say("connection", "The connection is lost. What you see may be old; this page tries again by itself.", "bad");
  }
  on("htmx:sendError", connectionLost);
  on("htmx:timeout", connectionLost);
  on("htmx:afterOnLoad", () => {
    if (!lost) return;
    lost = false;
    say("connection", "Connected again.", "good");
    setTimeout(() => lost || say("connection", ""), 4000);
  });

  /* -- htmx: what to do with answers that are no success ---------------------------------------------------------- */

  on("htmx:beforeSwap", (event) => {
    const { detail } = event;
    const status = detail.xhr.status;
    /* A whole page that says what went wrong takes the page's place; into a part it would not fit. */
    if (detail.boosted && status >= 400) detail.shouldSwap = true;
    /* A form's part comes back with its errors beside the fields. */
    else if ([400, 409, 422].includes(status)) {
      detail.shouldSwap = detail.requestConfig.triggeringEvent?.type === "submit";
    }
  });
  on("htmx:responseError", (event) => {
    /* The session has ended, and the server did not say where to go: the page itself will be led to the sign-in. */
    if (event.detail.xhr.status === 401) window.location.reload();
  });
  on("htmx:afterSettle", weighAll);

  /* -- Morphing leaves alone what somebody is doing: half-filled fields, opened rows, a form on its way ------------- */

  /* An action may lead to another page, where a field of the same name is another field. */
  let samePage = true;
  on("htmx:beforeSwap", ({ detail }) => {
    samePage = !detail.boosted || new URL(detail.xhr.responseURL).pathname === window.location.pathname;
  });

  function touched(control) {
    if (control instanceof HTMLSelectElement) {
      return [...control.options].some((option) => option.selected !== option.defaultSelected);
    }
    if (control.type === "checkbox" || control.type === "radio") return control.checked !== control.defaultChecked;
    return control.type !== "hidden" && control.value !== control.defaultValue;
  }

  function keep(old, fresh) {
    return samePage && old instanceof Element && old.matches("input, textarea, select") && old.form?.dataset.sent !== "yes" &&
      old.id === fresh.id && old.name === fresh.name && touched(old);
  }

  if (window.Idiomorph) {
    Object.assign(window.Idiomorph.defaults.callbacks, {
      beforeNodeMorphed: (old, fresh) => !keep(old, fresh),
      beforeAttributeUpdated: (name, element) =>
        !(samePage && ((name === "open" && element instanceof HTMLDetailsElement) || name === "data-sent" || name === "aria-busy")),
    });
  }

  /* -- A session that is about to end is told two minutes before -------------------------------------------------- */

  const WARNING_SECONDS = 120;
  let idleTimer;

  function watchIdle() {
    const idle = Number(document.body.dataset.idleSeconds || 0);
    clearTimeout(idleTimer);
    if (!idle) return;
    say("idle", "");
    idleTimer = setTimeout(warnIdle, Math.max(idle - WARNING_SECONDS, 1) * 1000);
  }

  function warnIdle() {
    const place = notice("idle");
    if (!place) return;
    say("idle", "You will be signed out in 2 minutes. ", "warn");
    const stay = document.createElement("button");
    stay.type = "button";
    stay.className = "btn btn-sm";
    stay.textContent = "Stay signed in";
    stay.addEventListener("click", async () => {
      /* A plain request for this page counts as a click, and leaves half-filled forms alone. */
      const answer = await fetch(window.location.href, { credentials: "same-origin", redirect: "manual" }).catch(() => null);
      if (answer?.ok) watchIdle();
      else window.location.reload();
    });
    place.append(stay);
  }

  /* Polls do not count as use; whatever somebody clicks does. */
  on("htmx:afterRequest", (event) => {
    if (event.detail.requestConfig.triggeringEvent?.isTrusted) watchIdle();
  });

  bringBack();
  weighAll();
  watchIdle();
})();
