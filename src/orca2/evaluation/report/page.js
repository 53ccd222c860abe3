"use strict";
const form = document.getElementById("filters"), words = document.getElementById("words");
const shown = document.getElementById("shown"), cards = [...document.querySelectorAll(".card")];
function filter() {
  const wanted = [...form.querySelectorAll("select")].filter((one) => one.value);
  const text = words.value.toLowerCase();
  let count = 0;
  for (const card of cards) {
    const fits = wanted.every((one) => card.dataset[one.name] === one.value)
      && (!text || card.textContent.toLowerCase().includes(text));
    card.hidden = !fits;
    count += fits ? 1 : 0;
  }
  shown.textContent = `${count.toLocaleString("en")} shown`;
}
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
filter();
