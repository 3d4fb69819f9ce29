// Measures every page that is shown in a frame, and writes what a reader would find wrong with it.
"use strict";
const faults = [];

function luminance(color) {
	const [r, g, b] = color.match(/[\d.]+/g).slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
	return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a, b) {
	const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
	return (light + 0.05) / (dark + 0.05);
}

function background(element) {
	for (let e = element; e; e = e.parentElement) {
		const color = getComputedStyle(e).backgroundColor;
		if (!/, 0\)$/.test(color)) return color;
	}
	return "rgb(255, 255, 255)";
}

function shown(element) {
	return element.getClientRects().length > 0 && !element.closest("title, style");
}

// texts are the lines of text as they are shown, each with its box.
function texts(page) {
	const found = [];
	const nodes = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
	for (let node = nodes.nextNode(); node; node = nodes.nextNode()) {
		if (!node.data.trim() || !shown(node.parentElement)) continue;
		const range = page.createRange();
		range.selectNodeContents(node);
		for (const box of range.getClientRects())
			if (box.width > 0.5) found.push({ box, node, element: node.parentElement, text: node.data.trim().slice(0, 40) });
	}
	return found;
}

function measure(frame) {
	const page = frame.contentDocument, root = page.documentElement;
	const fault = text => faults.push(frame.title + ": " + text);
	if (root.scrollWidth > frame.width) fault(`it is ${root.scrollWidth} px wide`);

	const all = texts(page);
	for (const [i, a] of all.entries()) {
		if (a.box.left < -0.5 || a.box.right > frame.width) fault(`"${a.text}" leaves the page`);
		const within = a.element.closest("svg, td, th, .sum div, pre")?.getBoundingClientRect();
		if (within && (a.box.left < within.left - 0.5 || a.box.right > within.right + 0.5)) fault(`"${a.text}" leaves its box`);
		for (const b of all.slice(i + 1)) {
			const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
			const high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
			if (wide > 1 && high > 2 && a.node !== b.node) fault(`"${a.text}" overlaps "${b.text}"`);
		}
		const style = getComputedStyle(a.element);
		const ratio = contrast(a.element.closest("svg") ? style.fill : style.color, background(a.element));
		if (ratio < 4.5) fault(`"${a.text}" has a contrast of ${ratio.toFixed(1)}`);
	}
	const amount = page.querySelector(".sum");
	if (amount && amount.getBoundingClientRect().top > 300) fault("the amount is below what nobody looks for first");
	for (const cell of page.querySelectorAll("td.n")) {
		const head = cell.closest("table").tHead, label = getComputedStyle(cell, "::before").content;
		if (!head || shown(head)) continue;
		if (cell.textContent && label === "none") fault(`nothing says what "${cell.textContent}" is`);
		if (!cell.textContent && label !== "none") fault(`${label} is nothing`);
	}
	for (const row of page.querySelectorAll("tr")) {
		const cells = [...row.children].filter(c => shown(c) && c.textContent.trim()).map(c => {
			const range = page.createRange();
			range.selectNodeContents(c);
			return range.getBoundingClientRect();
		});
		for (const [i, right] of cells.entries())
			if (i > 0 && right.top < cells[i - 1].bottom && right.left - cells[i - 1].right < 8) fault(`"${row.textContent.trim().slice(0, 40)}" has columns that touch`);
	}
	for (const name of page.querySelectorAll("svg .name text")) {
		if (!shown(name)) continue;
		const box = name.getBoundingClientRect();
		for (const line of name.ownerSVGElement.querySelectorAll("line.limit")) {
			const y = line.getBoundingClientRect().top;
			if (y > box.top + 1 && y < box.bottom - 2) fault(`"${name.textContent}" is struck through`);
		}
	}
	for (const mark of page.querySelectorAll("svg .use, svg .adjusted, svg .limit, svg .day")) {
		const style = getComputedStyle(mark);
		const ratio = contrast(mark.matches(".day") ? style.fill : style.stroke, background(mark));
		if (shown(mark) && ratio < 3) fault(`${mark.getAttribute("class")} has a contrast of ${ratio.toFixed(1)}`);
	}
}

addEventListener("load", () => {
	const frames = [...document.querySelectorAll("iframe")];
	frames.forEach(measure);
	const report = document.createElement("pre");
	report.id = "report";
	report.textContent = JSON.stringify({
		Pages: frames.length,
		Scheme: luminance(background(frames[0].contentDocument.body)) < 0.5 ? "dark" : "light",
		Faults: [...new Set(faults)],
	});
	document.body.append(report);
});
