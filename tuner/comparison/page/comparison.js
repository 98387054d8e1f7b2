"use strict";
// Sorts, filters, browses and copies; the page can be read without it. State stands in the address behind `#`, as in
// #score=bleu&sort=costs:train:ascending&a=dora&b=lora&show=a&find=kettle&page=2, so that a view can be sent as a link.
(() => {
  const PAGE = 50;
  const LEAD = 280; // characters of a prompt that stand open
  const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const byId = (id) => document.getElementById(id);

  function make(tag, text, kind) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function remember(name, value) {
    if (value) state.set(name, value);
    else state.delete(name);
    history.replaceState(null, "", "#" + state);
  }

  // ---- tables

  function sortTable(table, key, direction) {
    const heads = [...table.tHead.rows[0].cells];
    const column = heads.findIndex((head) => head.dataset.key === key);
    if (column < 0) return;
    const sign = direction === "descending" ? -1 : 1;
    const value = (row) => {
      const cell = row.cells[column];
      return column ? (cell.dataset.sort === undefined ? null : Number(cell.dataset.sort)) : cell.textContent;
    };
    const compare = (one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) return (a === null) - (b === null); // what is missing stands last either way
      return sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare));
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", direction);
    // the rules between groups belong to the order that the page was drawn in
    const drawn = table.dataset.drawn === `${key}:${direction}`;
    for (const row of body.rows) row.classList.toggle("rule", drawn && row.dataset.rule === "yes");
  }

  function makeSortable(table) {
    for (const row of table.tBodies[0].rows) if (row.classList.contains("rule")) row.dataset.rule = "yes";
    for (const head of table.tHead.rows[0].cells) {
      if (head.hasAttribute("aria-sort")) table.dataset.drawn = `${head.dataset.key}:${head.getAttribute("aria-sort")}`;
      const button = make("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        sortTable(table, head.dataset.key, direction);
        remember("sort", `${table.id}:${head.dataset.key}:${direction}`);
      });
    }
  }

  function pickScores() {
    const inputs = [...document.querySelectorAll("input[name=score]")];
    const target = location.hash.includes("=") ? null : byId(decodeURIComponent(location.hash.slice(1)));
    const block = target?.closest(".of-score"); // a link to a pair in another score shows that score
    const wanted = inputs.find((input) => input.value === state.get("score") || block?.classList.contains(input.id));
    for (const input of inputs) {
      if (wanted) input.toggleAttribute("checked", input === wanted);
      input.addEventListener("change", () => remember("score", input.value));
    }
    if (block) target.scrollIntoView();
  }

  // ---- copying

  async function copy(block, button) {
    try {
      await navigator.clipboard.writeText(block.textContent);
    } catch {
      block.parentElement.open = true; // no clipboard here: show the text, selected
      getSelection().selectAllChildren(block);
    }
    const said = button.textContent;
    button.textContent = getSelection().isCollapsed ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = said), 1500);
  }

  function makeCopies() {
    const place = document.querySelector(".copies");
    const row = make("p", undefined, "controls");
    for (const block of place.querySelectorAll("pre")) {
      const name = block.previousElementSibling.textContent.replace(/^As /, "");
      const button = make("button", `Copy as ${name}`, "action");
      button.type = "button";
      button.addEventListener("click", () => copy(block, button));
      row.append(button);
    }
    place.before(row);
  }

  // ---- examples

  // Words, single Chinese or Japanese characters, and marks, each with the white space before it.
  const CJK = "\\u3040-\\u30ff\\u3400-\\u9fff\\uf900-\\ufaff";
  const WORDS = new RegExp(`\\s*(?:[${CJK}]|(?:(?![${CJK}])[\\p{L}\\p{M}\\p{N}_])+|\\S)|\\s+`, "gu");
  const words = (text) => text.match(WORDS) || [];

  // Which words of `mine` are in a longest common subsequence with `other`.
  function shared(mine, other) {
    const [m, n] = [mine.length, other.length];
    const length = Array.from({ length: m + 1 }, () => new Uint16Array(n + 1));
    for (let i = m - 1; i >= 0; i--)
      for (let j = n - 1; j >= 0; j--)
        length[i][j] = mine[i] === other[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    const found = new Set();
    for (let i = 0, j = 0; i < m && j < n; ) {
      if (mine[i] === other[j]) {
        found.add(i++);
        j++;
      } else if (length[i + 1][j] >= length[i][j + 1]) i++;
      else j++;
    }
    return found;
  }

  function marked(text, other) {
    const place = make("p", undefined, "data");
    place.dir = "auto";
    const mine = words(text);
    const bare = (list) => list.map((word) => word.trim());
    const same = shared(bare(mine), bare(words(other)));
    mine.forEach((word, index) => {
      const space = word.length - word.trimStart().length;
      const before = place.lastElementChild;
      if (same.has(index) || !word.trim()) place.append(word);
      else if (before && before === place.lastChild) before.append(word);
      else place.append(word.slice(0, space), make("mark", word.slice(space), "differs"));
    });
    return place;
  }

  function dataText(text, language, tag = "p") {
    const made = make(tag, text, "data");
    made.dir = "auto";
    if (language) made.lang = language;
    return made;
  }

  function promptText(text, language) {
    if (text.length <= LEAD * 1.5) return dataText(text, language);
    const folded = make("details", undefined, "prompt");
    const summary = make("summary");
    const lead = text.slice(0, LEAD).replace(/\s+\S*$/, "").replace(/\s+/g, " ");
    summary.append(dataText(`${lead} \u2026`, language, "span"));
    folded.append(summary, dataText(text, language));
    return folded;
  }

  const printed = (value) => (value === null ? "-" : String(Number(value.toPrecision(3))).replace("-", "\u2212"));

  function startBrowser() {
    const data = JSON.parse(byId("data").textContent);
    if (!data.rows.length || !data.examples.length) return;
    const [sideA, sideB, score, find] = ["side-a", "side-b", "side-score", "side-search"].map(byId);
    for (const select of [sideA, sideB])
      data.rows.forEach((row, index) => select.append(new Option(row.label, String(index))));
    data.scores.forEach((one, index) => score.append(new Option(one.name, String(index))));
    document.querySelector(".score-choice").hidden = data.scores.length < 2;
    const named = (name, fallback) => {
      const index = data.rows.findIndex((row) => row.slug === state.get(name));
      return String(index < 0 ? Math.min(fallback, data.rows.length - 1) : index);
    };
    sideA.value = named("a", 0);
    sideB.value = named("b", 1);
    find.value = state.get("find") || "";
    const filters = [...document.querySelectorAll("input[name=filter]")];
    for (const input of filters) if (input.value === state.get("show")) input.checked = true;
    let page = Math.max(Number(state.get("page")) || 1, 1);

    function difference(example) {
      const each = data.scores.length ? example.scores[Number(score.value)] : [];
      const [a, b] = [each[Number(sideA.value)], each[Number(sideB.value)]];
      if (a === null || b === null || a === undefined) return null;
      return data.scores[Number(score.value)].higher ? a - b : b - a;
    }

    function chosen(filter) {
      const wanted = find.value.trim().toLowerCase();
      const sides = [Number(sideA.value), Number(sideB.value)];
      const text = (e) => [e.id, e.prompt, ...e.references, ...sides.map((side) => e.replies[side])].join("\n");
      const found = data.examples
        .map((example) => ({ example, gap: difference(example) }))
        .filter(({ example }) => !wanted || text(example).toLowerCase().includes(wanted));
      if (filter === "a") return found.filter((one) => one.gap > 0).sort((x, y) => y.gap - x.gap);
      if (filter === "b") return found.filter((one) => one.gap < 0).sort((x, y) => x.gap - y.gap);
      if (filter === "different") return found.sort((x, y) => Math.abs(y.gap || 0) - Math.abs(x.gap || 0));
      return found;
    }

    function reply(example, side, other) {
      const place = make("div");
      place.append(make("h4", data.rows[side].label));
      place.firstChild.dir = "auto";
      const text = example.replies[side];
      const shown = text ? marked(text, example.replies[other]) : make("p", "(empty reply)", "muted");
      if (text && data.language) shown.lang = data.language;
      const notes = make("p", undefined, "muted notes");
      data.scores.forEach((one, index) => {
        notes.append(make("span", `${one.name} ${printed(example.scores[index][side])}`));
      });
      if (!example.finished[side]) notes.append(make("span", "did not end by itself"));
      place.append(shown, notes);
      return place;
    }

    function article({ example, gap }) {
      const [a, b] = [Number(sideA.value), Number(sideB.value)];
      const place = make("article");
      const head = make("h3", example.id);
      const word = gap === null ? "" : gap > 0 ? "A better" : gap < 0 ? "B better" : "equal";
      head.append(make("small", gap ? `${word} by ${printed(Math.abs(gap))}` : word));
      place.append(head, make("h4", "Prompt"), promptText(example.prompt, data.language));
      place.append(make("h4", example.references.length > 1 ? "References" : "Reference"));
      for (const reference of example.references) place.append(dataText(reference, data.language));
      const pair = make("div", undefined, "pair");
      pair.append(reply(example, a, b), reply(example, b, a));
      place.append(pair);
      return place;
    }

    function count() {
      const gaps = data.examples.map(difference).filter((gap) => gap !== null);
      const [more, less] = [gaps.filter((gap) => gap > 0).length, gaps.filter((gap) => gap < 0).length];
      if (!gaps.length) return "These rows have no scores of single examples.";
      return `A better ${more}, equal ${gaps.length - more - less}, B better ${less}.`;
    }

    function turn(label, step, enabled) {
      const button = make("button", label, "action");
      button.type = "button";
      button.disabled = !enabled;
      button.addEventListener("click", () => {
        page += step;
        remember("page", page > 1 ? String(page) : "");
        show();
        byId("examples-heading").scrollIntoView();
      });
      return button;
    }

    function show() {
      const found = chosen(filters.find((input) => input.checked).value);
      const pages = Math.max(Math.ceil(found.length / PAGE), 1);
      page = Math.min(page, pages);
      const shown = found.slice((page - 1) * PAGE, page * PAGE);
      byId("side-counts").textContent = `${count()} Shown: ${found.length} of ${data.examples.length}.`;
      byId("side-rows").replaceChildren(...shown.map(article));
      const where = make("span", `${page} of ${pages}`);
      const turns = [turn("Previous", -1, page > 1), where, turn("Next", 1, page < pages)];
      byId("side-pages").replaceChildren(...(pages > 1 ? turns : []));
    }

    function changed() {
      page = 1;
      remember("page", "");
      remember("a", data.rows[Number(sideA.value)].slug);
      remember("b", data.rows[Number(sideB.value)].slug);
      remember("show", filters.find((input) => input.checked).value);
      remember("find", find.value);
      show();
    }

    function openPair(cell) {
      const place = (slug) => data.rows.findIndex((row) => row.slug === slug);
      const [a, b] = [place(cell.dataset.a), place(cell.dataset.b)];
      if (a < 0 || b < 0) return;
      [sideA.value, sideB.value] = [String(a), String(b)];
      changed();
      byId("examples-heading").scrollIntoView();
    }

    for (const cell of document.querySelectorAll("td[data-a]")) {
      cell.firstElementChild.addEventListener("click", (event) => {
        event.preventDefault();
        openPair(cell);
      });
    }
    if (byId("differences-hint")) byId("differences-hint").hidden = false;
    for (const control of [sideA, sideB, score, ...filters]) control.addEventListener("change", changed);
    find.addEventListener("input", changed);
    byId("still").hidden = true;
    byId("browser").hidden = false;
    show();
  }

  for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
  const [id, key, direction] = (state.get("sort") || "").split(":");
  if (byId(id || "-")?.matches("table.sortable")) sortTable(byId(id), key, direction);
  pickScores();
  makeCopies();
  if (byId("browser")) startBrowser();
})();
