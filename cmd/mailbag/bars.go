package main

import "strings"

// eighths are the block elements that fill one cell from the left, U+258F to U+2588.
var eighths = []rune("▏▎▍▌▋▊▉█")

// bar draws part of whole as a bar in a field of so many cells. It is full where part exceeds whole,
// and shows anything above nothing as at least an eighth of a cell.
func bar(part, whole int64, cells int) string {
	if part <= 0 || whole <= 0 {
		return strings.Repeat(" ", cells)
	}
	filled := cells * 8
	if part < whole {
		filled = max(1, int(float64(part)/float64(whole)*float64(filled)))
	}
	text := strings.Repeat("█", filled/8)
	used := filled / 8
	if rest := filled % 8; rest > 0 {
		text += string(eighths[rest-1])
		used++
	}
	return text + strings.Repeat(" ", cells-used)
}
