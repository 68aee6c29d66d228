"use strict";
// A click or Enter on a table's head sorts by that column: numbers as numbers, rows within their group, sums stay last.
(() => {
  const UNITS = { "%": 1, k: 1e3, K: 1e3, M: 1e6, B: 1e9, T: 1e12 };
  const number = (text) => {
    const found = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([%kKMBT]?)(?![\p{L}\d])/u.exec(text);
    return found ? Number(found[1]) * (UNITS[found[2]] ?? 1) : NaN;
  };
  const content = (row, column) => row.cells[column]?.textContent.trim().replace(/,/g, "").replace("−", "-") ?? "";
  const before = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1; // no figure: at the end, either way
    return Number.isNaN(x) ? a.localeCompare(b, "tr") : x - y;
  };
  const blocks = (body) => {
    const found = [[]];
    for (const row of body.rows) (row.matches(".group, .last") ? found.push([]) : found.at(-1).push(row));
    return found.filter((rows) => rows.length > 1);
  };
  const sort = (table, heads, column) => {
    const order = heads[column].getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
    heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? order : "none"));
    const sign = order === "ascending" ? 1 : -1;
    for (const rows of [...table.tBodies].flatMap(blocks)) {
      const end = rows.at(-1).nextSibling, body = rows[0].parentNode;
      const missing = (row) => Number(content(row, column) === "" || /^[–-]$/.test(content(row, column)));
      rows.sort((a, b) => missing(a) - missing(b) || sign * before(content(a, column), content(b, column)));
      rows.forEach((row) => body.insertBefore(row, end));
    }
  };
  for (const table of document.querySelectorAll("table")) {
    const heads = [...(table.tHead?.rows[0]?.cells ?? [])];
    heads.forEach((head, column) => {
      head.setAttribute("aria-sort", "none");
      head.tabIndex = 0;
      head.addEventListener("click", () => sort(table, heads, column));
      head.addEventListener("keydown", (event) => event.key === "Enter" && sort(table, heads, column));
    });
  }
})();
