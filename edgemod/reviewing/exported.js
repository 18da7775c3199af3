"use strict";
// Where records come from and answers go in a page without a server: this file and the browser.
const desk = (() => {
  const start = JSON.parse(document.getElementById("data").textContent);
  const units = start.units;
  const place = `edgemod-review-${start.about}-${start.reviewer}`;
  let kept = { answers: [], seen: [], reviewer: "" };
  let stored = true;
  try {
    kept = JSON.parse(localStorage.getItem(place)) ?? kept;
  } catch {
    stored = false;
  }
  const id = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
  kept.reviewer = start.reviewer || kept.reviewer || `r-${id().slice(0, 8)}`;
  let unsaved = false;
  let now = null; // the unit on the page, by its number
  let level = 0;
  let mild = 99; // milder records since the last severe one
  const skipped = new Set();

  const keep = () => {
    unsaved = true;
    try {
      localStorage.setItem(place, JSON.stringify(kept));
    } catch {
      stored = false;
    }
  };
  window.addEventListener("beforeunload", (event) => {
    if (unsaved && !stored) event.preventDefault(); // nothing else keeps them
  });

  const key = (record) => `${record.source}#${record.source_row}`;
  const standing = () => {
    const gone = new Set(kept.answers.map((one) => one.supersedes));
    return kept.answers.filter((one) => one.answer !== "undo" && !gone.has(one.answer_id));
  };
  const capped = () => {
    const seen = {};
    let later = Date.now();
    for (const [at, weight] of kept.seen.toReversed()) {
      if (later - at >= start.pauseMinutes * 60000) break;
      seen[weight] = (seen[weight] ?? 0) + 1;
      later = at;
    }
    return (weight) => weight in start.caps && (seen[weight] ?? 0) >= start.caps[weight];
  };
  const find = () => {
    const done = new Set(standing().map(key));
    const waiting = units
      .map((unit, i) => ({ unit, i }))
      .filter(({ unit, i }) => unit.records.some((one) => !done.has(key(one))) && !skipped.has(i) && !start.without.includes(unit.category));
    const over = capped();
    const possible = waiting.filter(({ unit }) => !over(unit.weight));
    const due = possible.find(({ unit }) => mild >= (start.gaps[unit.weight] ?? 0)) ?? possible[0];
    if (due) {
      now = due.i;
      level = 0;
      if (start.level === 2) expose(2);
      return "";
    }
    now = null;
    return waiting.length ? "capped" : skipped.size ? "skipped" : "done";
  };
  const expose = (to) => {
    if (!level) {
      kept.seen.push([Date.now(), units[now].weight]);
      keep();
    }
    level = Math.max(level, Math.min(Math.max(to, 1), 2));
  };
  const leave = () => {
    mild = units[now].weight >= 4 ? 0 : mild + 1;
    now = null;
  };
  const told = () => {
    const why = now === null ? find() : "";
    const answered = new Set(standing().map(key));
    const done = units.flatMap((unit) => unit.records).filter((one) => answered.has(key(one))).length;
    const progress = { records: start.records, queue: start.records, done, mine: done };
    if (now === null) return { why, progress };
    const alike = units[now].records.length - 1;
    return { ...units[now].shown, row: now, alike, progress, earlier: [], level: start.level };
  };

  return {
    next: async () => told(),
    reveal: async (row, to) => {
      expose(to);
      const unit = units[row];
      return { ...(level < 2 && unit.hidden ? unit.hidden : unit.texts), revealed: unit.hidden ? level : 2 };
    },
    answer: async ({ answer, category, note, seconds }) => {
      const unit = units[now];
      if (answer === "clear" && !level && unit.texts.text) throw new Error("was not looked at: Reveal the text before you clear it.");
      const lead = id();
      const at = new Date().toISOString();
      const done = new Set(standing().map(key));
      const open = unit.records.filter((record) => !done.has(key(record)));
      for (const [n, record] of open.entries()) {
        kept.answers.push({
          answer_id: n ? id() : lead, ...record, reviewer: kept.reviewer, answer,
          answer_category: answer === "flag" ? category : null, note: n ? null : note, answered_at: at,
          policy: start.policy, seconds: n ? null : seconds, revealed: n ? null : level,
          decided_with: n ? lead : null, settles: false, supersedes: null,
        });
      }
      keep();
      leave();
      return told();
    },
    skip: async () => {
      skipped.add(now);
      leave();
      return told();
    },
    undo: async () => {
      const last = standing().at(-1);
      if (!last) throw new Error("there is nothing to undo: You have no answer here yet.");
      const lead = last.decided_with ?? last.answer_id;
      const at = new Date().toISOString();
      for (const one of standing().filter((other) => [other.answer_id, other.decided_with].includes(lead))) {
        kept.answers.push({ ...one, answer_id: id(), answer: "undo", answered_at: at, supersedes: one.answer_id });
      }
      keep();
      const of = units.findIndex((unit) => unit.records.some((record) => key(record) === key(last)));
      now = of < 0 ? null : of; // an answer that was given in an earlier file
      level = 0;
      return told();
    },
    save: () => {
      const lines = kept.answers.map((one) => JSON.stringify(one) + "\n");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
      link.download = `answers-${kept.reviewer}.jsonl`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      unsaved = false;
      return `${standing().length} answers saved; give the file to 'edgemod review import'`;
    },
    reviewer: () => kept.reviewer,
  };
})();
