// The table of trials: sorted, filtered and paged by the server, so that ten thousand are no more
// work than fifty.
"use strict";
class Trials {
  constructor(ask, open) {
    this.ask = ask;
    this.open = open;
    this.sort = "trial";
    this.descending = true;
    this.start = 0;
    this.filter = element("input", {type: "search", id: "filter", class: "grow", "aria-label": "Filter trials",
      placeholder: "Filter, as in: failed   lr<0.01   optimizer=adam"});
    let waiting;
    this.filter.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { this.start = 0; this.refresh(); }, 150);
    });
    this.count = element("span", {class: "quiet", role: "status"});
    this.back = element("button", {onclick: () => this.go(-1)}, "Previous");
    this.on = element("button", {onclick: () => this.go(1)}, "Next");
    this.table = element("table", {id: "trials", "aria-label": "Trials"});
    this.root = element("div", {},
      element("div", {class: "bar"}, this.filter, this.count, this.back, this.on),
      element("div", {class: "scrolls"}, this.table));
  }

  go(pages) {
    this.start = Math.max(0, this.start + pages * 50);
    this.refresh();
  }

  async refresh() {
    const turn = this.turn = (this.turn ?? 0) + 1;
    const answer = await this.ask("/api/trials", {
      sort: this.sort, descending: this.descending ? 1 : 0, where: this.filter.value, start: this.start});
    if (turn !== this.turn) return; // another question was asked meanwhile
    if (answer.error) { this.count.textContent = answer.error; return; }
    const focused = document.activeElement?.dataset?.key;
    const last = Math.min(this.start + 50, answer.found);
    this.count.textContent = `${answer.found ? this.start + 1 : 0}–${last} of ${answer.found}` +
      (answer.found < answer.of ? ` (${answer.of} in all)` : "");
    this.back.disabled = this.start === 0;
    this.on.disabled = last >= answer.found;
    const head = element("tr", {}, ...answer.columns.map((name) => {
      const sorted = name === this.sort ? (this.descending ? "descending" : "ascending") : null;
      const mark = sorted ? (this.descending ? " ▼" : " ▲") : "";
      return element("th", {"aria-sort": sorted, scope: "col", title: name.length > 40 ? name : null}, element("button", {"data-key": `sort ${name}`,
        onclick: () => this.by(name)}, name + mark));
    }));
    const rows = answer.rows.map((row) => element("tr", {}, ...row.map((value, column) => {
      if (column === 0) {
        return element("td", {}, element("button", {"data-key": `trial ${value}`,
          "aria-label": `Open trial ${value}`, onclick: () => this.open(value)}, String(value)));
      }
      const text = shown(value);
      if (column === 1) return element("td", {}, element("span", {class: `state ${text}`}), text);
      return element("td", {title: text.length > 40 ? text : null}, text);
    })));
    this.table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
    if (focused) this.table.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  by(name) {
    this.descending = this.sort === name ? !this.descending : true;
    this.sort = name;
    this.start = 0;
    this.refresh();
  }
}
