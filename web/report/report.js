// The report page is whole without this script; it adds the choice of language, sorting, and a search
// in long tables.
"use strict";

const page = document.documentElement;
const button = document.getElementById("switch");

function speak(language) {
  page.lang = language;
  button.lang = language === "zh" ? "en" : "zh";
  button.textContent = language === "zh" ? "English" : "中文";
}

const asked = location.hash === "#zh" || location.hash === "#en" ? location.hash.slice(1) : null;
speak(asked || (/^zh\b/i.test(navigator.language) ? "zh" : "en"));
button.hidden = false;
button.addEventListener("click", () => speak(page.lang === "zh" ? "en" : "zh"));

// Numbers are compared by data-v, which holds all digits; what is no number sorts last.
function order(a, b, column, sign) {
  const x = a.cells[column], y = b.cells[column];
  if (x.dataset.v === undefined) return sign * x.textContent.localeCompare(y.textContent);
  const p = Number(x.dataset.v), q = Number(y.dataset.v);
  if (Number.isNaN(p) || Number.isNaN(q)) return Number.isNaN(p) - Number.isNaN(q);
  return sign * (p - q);
}

const LONG = 20; // rows

function search(region) {
  const rows = Array.from(region.querySelectorAll("tbody tr"));
  if (rows.length < LONG || !region.querySelector("td.name")) return;
  const input = document.createElement("input");
  input.type = "search";
  input.className = "filter";
  input.placeholder = "name · 名称";
  input.setAttribute("aria-labelledby", region.getAttribute("aria-labelledby"));
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  region.before(input);
}

function sort(head) {
  const up = head.getAttribute("aria-sort") !== "ascending";
  const body = head.closest("table").tBodies[0];
  const rows = Array.from(body.rows);
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  rows.sort((a, b) => order(a, b, head.cellIndex, up ? 1 : -1));
  body.append(...rows);
}

for (const head of document.querySelectorAll("th")) {
  const inner = document.createElement("button");
  inner.type = "button";
  inner.append(...head.childNodes);
  head.append(inner);
  inner.addEventListener("click", () => sort(head));
}

for (const region of document.querySelectorAll(".table")) search(region);
