"use strict";
// Sets text only: no record can become markup.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const PAGE = 200;
let shown = [];
let rows = PAGE;
let current = null;

function make(tag, classes, text) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  if (text !== undefined) node.textContent = text;
  return node;
}

function countsOf(key) {
  const counts = new Map();
  for (const record of data.records) counts.set(record[key], (counts.get(record[key]) || 0) + 1);
  return [...counts].sort((one, other) => one[0].localeCompare(other[0]));
}

function fillFilter(key) {
  const select = at(key);
  select.append(new Option("all", ""));
  for (const [value, count] of countsOf(key)) select.append(new Option(`${value} (${count})`, value));
  select.addEventListener("change", filter);
}

function filter() {
  const words = at("search").value.trim().toLowerCase();
  shown = data.records.filter((record) =>
    ["task", "strategy", "verdict"].every((key) => !at(key).value || record[key] === at(key).value) &&
    (!words || [record.id, record.user, record.answer].some((text) => text.toLowerCase().includes(words))));
  rows = PAGE;
  list();
  select(shown.includes(current) ? current : shown[0] || null);
}

function list() {
  at("shown").textContent = `${shown.length.toLocaleString("en")} of ${data.records.length.toLocaleString("en")} records`;
  at("list").replaceChildren(...shown.slice(0, rows).map(row));
  at("more").hidden = rows >= shown.length;
}

function row(record) {
  const item = make("li");
  const button = make("button");
  button.type = "button";
  button.append(make("span", "line", record.user.replace(/\s+/g, " ").slice(0, 120)));
  const small = make("span", "line small");
  small.append(make("span", record.verdict, record.verdict), ` · ${record.task} · ${record.strategy}`);
  button.append(small);
  button.setAttribute("aria-current", String(record === current));
  button.addEventListener("click", () => select(record));
  item.append(button);
  return item;
}

function select(record) {
  current = record;
  [...at("list").children].forEach((item, index) =>
    item.firstChild.setAttribute("aria-current", String(shown[index] === record)));
  at("record").replaceChildren(...(record ? detail(record) : [make("p", "none", "No record passes the filters.")]));
  at("record").scrollTop = 0;
  if (record) history.replaceState(null, "", "#" + encodeURIComponent(record.id));
}

function panel(classes, title, text, none) {
  const box = make("section", "panel " + classes);
  box.append(make("h3", "", title));
  box.append(text ? make("pre", "", text) : make("p", "none", none));
  return box;
}

function pair(left, right) {
  const both = make("div", "pair");
  both.append(left, right);
  return both;
}

function facts(record) {
  const line = make("p", "facts", `task ${record.task} · strategy ${record.strategy} · verdict `);
  line.append(make("span", "verdict " + record.verdict, record.verdict));
  const rest = [record.gold === null ? "no gold answer" : `gold ${record.gold}`, `teacher ${record.teacher}`];
  if (record.usage.completion_tokens) rest.push(`${record.usage.completion_tokens} tokens`);
  if (record.lineage) rest.push(`from ${record.lineage}`);
  line.append(make("span", "", " · " + rest.join(" · ")));
  return line;
}

function detail(record) {
  const same = record.erased === record.unerased;
  const parts = [
    make("h2", "", record.id),
    facts(record),
    pair(
      panel(same ? "" : "hidden-from-student", "system prompt of the teacher (unerased)", record.unerased, "none"),
      panel("", `system prompt of the student (erasing ${data.erasing})`, record.erased, "none")),
  ];
  record.history.forEach((turn, index) => parts.push(pair(
    panel("", `turn ${index + 1}: user, the same for both`, turn.user, "empty"),
    panel("", `turn ${index + 1}: answer`, turn.answer, "empty"))));
  parts.push(panel("single", "user prompt, the same for both", record.user, "empty"));
  if (record.reasoning) parts.push(panel("single", "reasoning trace, trained on with thinking=keep", record.reasoning, "empty"));
  const answer = panel("single answer", "answer that the student is trained on", record.answer, "empty");
  if (record.leaks.length) answer.append(make("p", "leak", "quotes the erased instruction: " + record.leaks.join(" | ")));
  parts.push(answer, make("p", "keys", "j and k move through the list, / searches"));
  return parts;
}

function move(by) {
  const index = shown.indexOf(current) + by;
  if (index < 0 || index >= shown.length) return;
  if (index >= rows) { rows += PAGE; list(); }
  select(shown[index]);
  at("list").children[index].scrollIntoView({ block: "nearest" });
}

document.title = data.title;
at("title").textContent = data.title;
at("summary").textContent = `${data.total.toLocaleString("en")} records in the data set, ` +
  (data.total > data.records.length ? `an even sample of ${data.records.length.toLocaleString("en")} here` : "all of them here");
["task", "strategy", "verdict"].forEach(fillFilter);
at("search").addEventListener("input", filter);
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("reset").addEventListener("click", () => { at("filters").reset(); filter(); });
at("more").addEventListener("click", () => { rows += PAGE; list(); });
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "j") move(1);
  if (event.key === "k") move(-1);
  if (event.key === "/") { event.preventDefault(); at("search").focus(); }
});
const wanted = decodeURIComponent(location.hash.slice(1));
current = data.records.find((record) => record.id === wanted) || null;
filter();
