// What the page can do beyond being read: filter, sort, show a row's layouts, and hand over the
// command that repeats a case. Text reaches the page through textContent alone.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, text = "") => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };

  // ---- light and dark: the system's choice until somebody chooses; #dark and #light choose, too.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const tellTheme = () => { $("theme").textContent = isDark() ? "Light" : "Dark"; };
  const byFragment = () => {
    const asked = location.hash.slice(1);
    if (asked === "dark" || asked === "light") root.dataset.theme = asked;
    tellTheme();
  };
  $("theme").hidden = false;
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    tellTheme();
  });
  dark.addEventListener("change", tellTheme);
  addEventListener("hashchange", byFragment);
  byFragment();

  // ---- cases: what a cell of a heat map says.
  // A layout is [regime, cells, magnitudes, errors, limits, wrong, cases, noted].
  const REGIME = 0, CELLS = 1, MAGNITUDES = 2, ERRORS = 3, LIMITS = 4, WRONG = 5, CASES = 6, NOTED = 7;
  const right = (glyph) => glyph === "." || glyph === "o" || glyph === " ";
  const nth = (layout, column) => {
    let place = 0;
    for (let k = 0; k < column; k++) if (!right(layout[CELLS][k] ?? " ")) place++;
    return place;
  };
  const number = (value) => {
    const text = Number(value.toPrecision(3)).toString();
    return text.length > 8 ? value.toExponential(2) : text;
  };
  const range = (dtype, column) => {
    const ends = data.limits[dtype];
    let low = Number("1e" + data.columns[column]);
    let high = column + 1 < data.columns.length ? Number("1e" + data.columns[column + 1]) : Infinity;
    if (ends) { low = Math.max(low, ends[0]); high = Math.min(high, ends[2]); }
    return `${number(low)} to ${number(high)}`;
  };
  const line = (row) => {
    const key = row.dataset.k;
    const every = data.layouts[key] || [];
    const chosen = row.dataset.l === undefined ? every.filter((each) => !each[NOTED]) : [every[row.dataset.l]];
    return { key, letter: key.slice(-1), chosen, folded: row.dataset.l === undefined };
  };
  const command = (key, layout, magnitude) => {
    const [before, after] = data.words.lines[key];
    const end = data.runs[key.slice(-1)][1];
    return `${before} --regime ${data.words.regimes[layout[REGIME]]} ${after} --magnitude ${magnitude} ${end}`;
  };
  const describe = (cell) => {
    const row = cell.parentElement;
    const table = cell.closest("table");
    const column = cell.cellIndex - Number(table.dataset.lead);
    const dtype = cell.closest("[data-d]").dataset.d;
    const map = cell.closest("[data-o]");
    const glyph = cell.textContent;
    const { key, letter, chosen, folded } = line(row);
    if (!glyph) return null;
    const [word, meaning, next] = data.verdicts[glyph];
    const alike = chosen.filter((layout) => layout[CELLS][column] === glyph);
    const there = chosen.filter((layout) => (layout[CELLS][column] ?? " ") !== " ");
    const names = alike.map((layout) => data.regimes[layout[REGIME]]);
    const listed = names.slice(0, 6).join(", ") + (names.length > 6 ? ` and ${names.length - 6} more` : "");
    const found = { title: `${word}, magnitude ${range(dtype, column)}`, text: meaning, command: "" };
    const several = Object.keys(data.runs).length > 1 ? `, run ${letter}` : "";
    found.where = `${map.dataset.o} ${row.dataset.p} ${dtype} ${map.dataset.y}${several}`;
    if (!alike.length) return found;
    found.layouts = folded ? `In ${alike.length} of ${there.length} layouts: ${listed}.` : `Layout ${listed}.`;
    if (right(glyph)) return found;
    found.text += " " + next;
    const cases = alike.map((layout) => ({
      layout,
      magnitude: layout[MAGNITUDES][nth(layout, column)],
      error: layout[ERRORS][nth(layout, column)],
    }));
    const far = (each) => Math.abs(Math.log10(Number(each.magnitude)));
    cases.sort((a, b) => far(a) - far(b));
    const worst = Math.max(...cases.map((each) => Number(each.error)));
    if (worst > 0) found.layouts += ` Off by up to ${number(worst)} ulp.`;
    found.command = command(key, cases[0].layout, cases[0].magnitude);
    return found;
  };

  // ---- the tip (hover and focus) and the dock (chosen, with the command to copy).
  const tip = $("tip"), dock = $("dock");
  const describeMark = (cell) => ({
    title: cell.dataset.told, text: "", command: cell.dataset.cmd || "",
    where: [...cell.parentElement.cells].slice(0, 1).map((each) => each.textContent).join() + " " + cell.parentElement.dataset.p,
  });
  const of = (cell) => (cell.classList.contains("mark") ? describeMark(cell) : describe(cell));
  const target = (event) => (event.target instanceof Element ? event.target.closest("td.c, td.mark") : null);
  const showTip = (cell) => {
    const told = cell && of(cell);
    tip.hidden = !told;
    if (!told) return;
    tip.textContent = [told.title, told.layouts].filter(Boolean).join(". ");
    const box = cell.getBoundingClientRect();
    const width = Math.min(330, innerWidth - 16);
    tip.style.maxWidth = width + "px";
    tip.style.left = Math.max(8, Math.min(box.left + scrollX - 20, scrollX + root.clientWidth - tip.offsetWidth - 8)) + "px";
    const above = box.top - tip.offsetHeight - 8;
    tip.style.top = scrollY + (above > 70 ? above : box.bottom + 8) + "px";
  };
  const showDock = (cell) => {
    const told = of(cell);
    if (!told) return;
    $("dock-title").textContent = `${told.where}: ${told.title}`;
    $("dock-text").textContent = [told.text, told.layouts].filter(Boolean).join(" ");
    // An option and its value stay on one line, as far as they fit.
    const parts = told.command.split(" --").map((part, k) => make("span", {}, (k ? "--" : "") + part));
    $("dock-command").replaceChildren(...parts.flatMap((part, k) => (k ? [" ", part] : [part])));
    $("dock-run").hidden = !told.command;
    $("dock-status").textContent = "";
    dock.hidden = false;
    tip.hidden = true;
  };
  const closeDock = () => { dock.hidden = true; };
  addEventListener("mouseover", (event) => showTip(target(event)));
  addEventListener("focusin", (event) => showTip(target(event)));
  addEventListener("click", (event) => { const cell = target(event); if (cell) showDock(cell); });
  $("dock-close").addEventListener("click", closeDock);
  $("dock-copy").addEventListener("click", async () => {
    const code = $("dock-command");
    getSelection().selectAllChildren(code);
    let copied = false;
    try {
      await navigator.clipboard.writeText(code.textContent);
      copied = true;
    } catch {
      try { copied = document.execCommand("copy"); } catch { copied = false; }
    }
    $("dock-status").textContent = copied ? "Copied." : "Selected: copy it with the keyboard.";
  });

  // On a narrow screen a map opens at magnitude 1, from where every search goes outwards.
  const middle = data.columns.indexOf(0);
  for (const table of document.querySelectorAll("table.heat")) {
    const head = table.querySelectorAll("th.p")[middle];
    const box = table.parentElement;
    if (head && box.scrollWidth > box.clientWidth) box.scrollLeft = head.offsetLeft - box.clientWidth * 0.6;
  }

  // ---- keyboard: a heat map is one stop of Tab; arrows move in it, Enter chooses, Escape closes.
  for (const table of document.querySelectorAll("table.heat")) {
    table.setAttribute("role", "grid");
    const first = table.querySelector("td.n, td.i, td.u, td.a") || table.querySelector("td.c");
    if (first) first.tabIndex = 0;
  }
  for (const mark of document.querySelectorAll("td.mark[data-cmd]")) mark.tabIndex = 0;
  const move = (cell, key) => {
    const rows = [...cell.closest("table").querySelectorAll("tr[data-k]")].filter((row) => !row.hidden);
    const place = rows.indexOf(cell.parentElement);
    const across = { ArrowLeft: -1, ArrowRight: 1 }[key] || 0;
    const down = { ArrowUp: -1, ArrowDown: 1 }[key] || 0;
    const row = rows[place + down];
    const next = row && row.cells[cell.cellIndex + across];
    if (!next || !next.classList.contains("c")) return;
    cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") { closeDock(); tip.hidden = true; return; }
    const cell = target(event);
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); showDock(cell); }
    else if (event.key.startsWith("Arrow") && cell.classList.contains("c")) { event.preventDefault(); move(cell, event.key); }
  });

  // ---- a row's layouts, each a row of its own below it.
  const layoutRow = (row, layout, place) => {
    const made = make("tr", { class: "layout", "data-k": row.dataset.k, "data-l": place, "data-p": row.dataset.p });
    made.append(make("th", { scope: "row" }, data.regimes[layout[REGIME]]));
    for (let k = 1; k < Number(row.closest("table").dataset.lead); k++) made.append(make("td"));
    for (let k = 0; k < data.columns.length; k++) {
      const glyph = (layout[CELLS][k] ?? " ").trim();
      made.append(make("td", { class: "c " + (glyph ? data.verdicts[glyph][3] : "e") }, glyph));
    }
    for (const limit of layout[LIMITS].split("|")) made.append(make("td", { class: "num" }, limit));
    made.append(make("td", { class: "num" }, `${layout[WRONG]}/${layout[CASES]}`));
    return made;
  };
  const toggle = (button, row) => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) {
      while (row.nextElementSibling && row.nextElementSibling.classList.contains("layout")) row.nextElementSibling.remove();
    } else {
      row.after(...(data.layouts[row.dataset.k] || []).map((layout, place) => layoutRow(row, layout, place)));
    }
  };
  for (const row of document.querySelectorAll("table.heat tr.f")) {
    if (!(data.layouts[row.dataset.k] || []).length) continue;
    const head = row.cells[0];
    const button = make("button", { type: "button", class: "more", "aria-expanded": "false", title: "each layout by itself" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => toggle(button, row));
  }

  // ---- sorting: a click sorts upwards, the next one downwards.
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.s ?? cell.textContent.trim().replaceAll(",", "");
    const parsed = parseFloat(text);
    return /^[-−\d.]/.test(text) && !Number.isNaN(parsed) ? parsed : text;
  };
  const order = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    return typeof b === "number" ? 1 : a.localeCompare(b, "en");
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        const sorted = rows.map((row) => [value(row, column), row]).sort((a, b) => (down ? order(b[0], a[0]) : order(a[0], b[0])));
        table.tBodies[0].append(...sorted.map((pair) => pair[1]));
      });
    });
  }

  // ---- filters: an element is hidden by what it, or what it stands in, says of itself.
  const form = $("filters");
  const BROKE = /[aunimx]/;
  const says = (element, name) => {
    const holder = element.closest(`[data-${name}]`);
    return holder ? holder.dataset[name] : null;
  };
  const fits = (element, asked) => {
    for (const name of ["o", "d", "y"]) {
      const said = says(element, name);
      if (asked[name] && said !== null && said !== asked[name]) return false;
    }
    const path = says(element, "p"), kinds = says(element, "v");
    if (asked.p && path !== null && !path.toLowerCase().includes(asked.p)) return false;
    if (asked.v && kinds !== null && ![...asked.v].some((kind) => kinds.includes(kind))) return false;
    if (asked.broke && kinds !== null && !BROKE.test(kinds)) return false;
    return !(asked.differs && element.dataset.k && !element.dataset.differs);
  };
  const every = [...document.querySelectorAll(".f")];
  const apply = () => {
    const given = new FormData(form);
    const asked = Object.fromEntries(["o", "d", "y", "v"].map((name) => [name, given.get(name) || ""]));
    asked.p = String(given.get("p") || "").trim().toLowerCase();
    asked.broke = given.has("broke");
    asked.differs = given.has("differs");
    for (const row of document.querySelectorAll("tr.layout")) row.remove();
    for (const button of document.querySelectorAll(".more")) button.setAttribute("aria-expanded", "false");
    let shown = 0;
    for (const element of every) {
      element.hidden = !fits(element, asked);
      if (!element.hidden && element.dataset.k) shown++;
    }
    for (const body of document.querySelectorAll(".heat tbody")) body.hidden = !body.querySelector("tr.f:not([hidden])");
    const filtered = asked.o || asked.d || asked.y || asked.v || asked.p || asked.broke || asked.differs;
    for (const map of document.querySelectorAll(".map")) map.hidden = Boolean(filtered) && !map.querySelector("tr.f:not([hidden])");
    const all = every.filter((element) => element.dataset.k).length;
    $("told").textContent = all ? `${shown} of ${all} rows of heat maps` : "";
    closeDock();
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
  root.dataset.ready = "1";
})();
