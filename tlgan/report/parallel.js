// Parallel coordinates of a sweep: a line a trial, an axis a parameter and the objective last; the colour is the objective.

const PARALLEL_HEIGHT = 300;
const AXIS_TOP = 40;
const AXIS_BOTTOM = PARALLEL_HEIGHT - 16;

class Parallel {
  constructor(figure) {
    this.sweep = REPORT.sweeps[Number(figure.dataset.sweep)];
    this.table = figure.closest("article").querySelector(".leaderboard");
    this.plot = figure.querySelector(".plot");
    this.brushes = new Map();
    this.trials = this.sweep.rows
      .map((row, i) => ({ i, row, objective: toNumber(row.objective) }))
      .filter((trial) => Number.isFinite(trial.objective));
    this.share = this.shares();
    onResize(this.plot.parentElement, (width) => this.draw(width));
    onThemeChange(() => this.draw(this.outer));
    for (const row of this.table.querySelectorAll("tbody tr")) {
      row.addEventListener("pointerenter", () => this.focus(Number(row.dataset.trial)));
      row.addEventListener("pointerleave", () => this.focus(null));
      row.addEventListener("focusin", () => this.focus(Number(row.dataset.trial)));
      row.addEventListener("focusout", () => this.focus(null));
    }
  }

  // 0 for the best trial, 1 for the worst, by place in the order: one bad outlier does not take all the colours.
  shares() {
    const sign = this.sweep.mode === "max" ? -1 : 1;
    const order = [...new Set(this.trials.map((t) => t.objective))].sort((a, b) => sign * (a - b));
    return new Map(order.map((value, i) => [value, order.length > 1 ? i / (order.length - 1) : 0]));
  }

  makeAxes(width) {
    const specs = [...this.sweep.axes.map((a) => ({ ...a, get: (row) => row.params[a.name] })), this.objectiveAxis()];
    const step = (width - 150) / Math.max(1, specs.length - 1);
    return specs.map((spec, i) => ({ ...spec, x: 60 + i * step, index: i, ...this.place(spec) }));
  }

  objectiveAxis() {
    const values = this.trials.map((t) => t.objective);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return { name: this.sweep.objective, scale: low > 0 && high / low > 20 ? "log" : "linear", get: (row) => row.objective };
  }

  // `y(value)` in px and the ticks of an axis. Missing values are drawn on the axis' foot.
  place(spec) {
    if (spec.scale === "category") {
      const keys = spec.choices.map((c) => JSON.stringify(c));
      const y = (value) => AXIS_TOP + ((AXIS_BOTTOM - AXIS_TOP) * (keys.indexOf(JSON.stringify(value)) + 0.5)) / keys.length;
      return { y, ticks: spec.choices.map((c) => [y(c), typeof c === "string" ? c : JSON.stringify(c)]) };
    }
    const values = this.trials.map((t) => toNumber(spec.get(t.row))).filter(Number.isFinite);
    const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    const whole = values.every(Number.isInteger) && high - low <= 12 && spec.scale === "linear";
    const scale = makeScale(low, high, AXIS_BOTTOM, AXIS_TOP, spec.scale === "log", 5);
    const ticks = whole ? scale.ticks.filter(Number.isInteger) : scale.ticks;
    return { y: (value) => scale(toNumber(value)), ticks: ticks.map((t) => [scale(t), words(t)]) };
  }

  draw(outer) {
    this.outer = outer;
    const width = Math.max(outer, 110 * (this.sweep.axes.length + 1) + 60);
    this.axes = this.makeAxes(width);
    const box = svg("svg", { viewBox: `0 0 ${width} ${PARALLEL_HEIGHT}`, width, height: PARALLEL_HEIGHT });
    box.style.minWidth = `${width > outer ? width : 0}px`;
    this.lines = new Map();
    const [lines, hits] = [svg("g"), svg("g")];
    for (const trial of [...this.trials].reverse()) {
      const d = this.path(trial.row);
      const line = svg("path", { d, class: "trial-line", stroke: heat(this.share.get(trial.objective)) });
      const hit = svg("path", { d, class: "trial-hit" }, svg("title", {}, `${trial.row.trial}: ${words(trial.objective)}`));
      hit.addEventListener("pointerenter", () => this.focus(trial.i));
      hit.addEventListener("pointerleave", () => this.focus(null));
      this.lines.set(trial.i, line);
      lines.append(line);
      hits.append(hit);
    }
    box.append(lines, ...this.axes.map((axis) => this.drawAxis(axis)), hits, ...this.axes.map((axis) => this.brushArea(axis)));
    this.plot.replaceChildren(box);
    this.filter();
  }

  path(row) {
    let previous = null;
    return this.axes
      .map((axis) => {
        const y = axis.y(axis.get(row));
        const at = [axis.x, Number.isFinite(y) && y >= AXIS_TOP - 1 ? y : AXIS_BOTTOM + 8];
        const bend = previous ? (at[0] - previous[0]) * 0.4 : 0;
        const text = previous
          ? `C${previous[0] + bend} ${previous[1]} ${at[0] - bend} ${at[1]} ${at[0]} ${at[1]}`
          : `M${at[0]} ${at[1]}`;
        previous = at;
        return text;
      })
      .join("");
  }

  drawAxis(axis) {
    const group = svg("g");
    const short = axis.name.split(".").pop() || axis.name;
    const [last, most] = [axis.index === this.axes.length - 1, 16];
    const name = short.length > most ? `${short.slice(0, most - 1)}…` : short;
    const log = axis.scale === "log" ? " (log)" : "";
    group.append(svg("text", { x: axis.x, y: 18, "text-anchor": "middle", class: "name" }, name + log, svg("title", {}, axis.name)));
    group.append(svg("line", { x1: axis.x, x2: axis.x, y1: AXIS_TOP - 6, y2: AXIS_BOTTOM + 6, class: "axis" }));
    for (const [y, label] of axis.ticks) {
      const text = label.length > 14 ? `${label.slice(0, 13)}…` : label;
      const side = last ? { x: axis.x + 9 } : { x: axis.x - 9, "text-anchor": "end" };
      group.append(svg("line", { x1: axis.x - 4, x2: axis.x + 4, y1: y, y2: y, class: "axis" }));
      const size = text.length * 6.2 + 4;
      group.append(svg("rect", { x: last ? axis.x + 7 : axis.x - 7 - size, y: y - 8, width: size, height: 16, rx: 3, class: "tick-back" }));
      group.append(svg("text", { ...side, y: y + 4 }, text));
    }
    return group;
  }

  brushArea(axis) {
    const group = svg("g");
    const mark = svg("rect", { x: axis.x - 7, width: 14, y: 0, height: 0, class: "brush" });
    const band = svg("rect", { x: axis.x - 11, width: 22, y: AXIS_TOP - 8, height: AXIS_BOTTOM - AXIS_TOP + 16, class: "band" });
    const show = () => {
      const [from, to] = this.brushes.get(axis.index) || [0, 0];
      mark.setAttribute("y", from);
      mark.setAttribute("height", to - from);
    };
    let start = null;
    const at = (event) => ((event.clientY - band.ownerSVGElement.getBoundingClientRect().top) * PARALLEL_HEIGHT) / band.ownerSVGElement.getBoundingClientRect().height;
    band.addEventListener("pointerdown", (event) => {
      start = at(event);
      band.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    band.addEventListener("pointermove", (event) => {
      if (start === null) return;
      this.brushes.set(axis.index, [Math.min(start, at(event)), Math.max(start, at(event))]);
      show();
      this.filter();
    });
    band.addEventListener("pointerup", (event) => {
      if (start !== null && Math.abs(at(event) - start) < 4) this.brushes.delete(axis.index);
      start = null;
      show();
      this.filter();
    });
    show();
    group.append(mark, band);
    return group;
  }

  filter() {
    for (const trial of this.trials) {
      const inside = [...this.brushes].every(([index, [from, to]]) => {
        const y = this.axes[index].y(this.axes[index].get(trial.row));
        return y >= from && y <= to;
      });
      this.lines.get(trial.i).classList.toggle("off", !inside);
      this.rowOf(trial.i)?.classList.toggle("off", !inside);
    }
  }

  rowOf(i) {
    return this.table.querySelector(`tr[data-trial="${i}"]`);
  }

  focus(i) {
    if (!this.lines) return;
    this.plot.classList.toggle("focused", i !== null && this.lines.has(i));
    for (const [trial, line] of this.lines) line.classList.toggle("on", trial === i);
    for (const row of this.table.querySelectorAll("tbody tr")) row.classList.toggle("on", Number(row.dataset.trial) === i);
  }
}
