package main

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// A plot is a month as the statement draws it, in units of its view box: what was used since the month began
// as a line, with the limits, and each day as a bar below.
type plot struct {
	Name          string // of the frame
	Width, Height float64
	Left, Right   float64
	Title, Unit   string
	Ticks, Limits []plotLine
	Days          []plotDay
	Line, Area    string // paths
	Adjusted      string // the path from what was counted to what is billed; empty without adjustments
	Adjustment    plotText
}

// A plotLine goes across the plot.
type plotLine struct {
	Y    float64
	Text plotText
}

// A plotText ends or begins at X.
type plotText struct {
	X, Y   float64
	Anchor string
	Text   string // empty: none
}

// A plotDay is the bar of a day.
type plotDay struct {
	X, Y, W, H float64
	Title      string
	Name       plotText // below it; not every day has one
}

// A frame is a plot's view box. The text of the wide one would be too small to read on a telephone.
type frame struct {
	name  string
	width float64
}

var frames = []frame{{"wide", 720}, {"narrow", 320}}

// Where things are in the view box, from the top down: the line's field, the bars' field, the names of days.
const (
	plotHeight        = 340.0
	plotMargin        = 8.0
	lineTop, lineFoot = 14.0, 210.0
	barTop, barFoot   = 232.0, 310.0
	plotNames         = 326.0
	digitWidth        = 7.0
	halfText          = 4.0
	textRoom          = 20.0 // from one line with a text to the next
	besideLine        = 5.0
	textAbove         = 10.0 // of its baseline
	textBelow         = 4.0
	barGap            = 0.16 // of a day's width, at each side
)

// newPlot draws the days that have passed of a month with so many.
func newPlot(f frame, i meter.Invoice, days []meter.Usage, inMonth int) plot {
	total, limit, bytes := i.Tariff.Nearer(i.Usage())
	of, write, name := func(u meter.Usage) int64 { return u.Messages }, grouped, "messages"
	most := grouped(limit)
	if bytes {
		of, write, name = func(u meter.Usage) int64 { return u.Bytes }, units.RoundSize, "size"
		most = exactSize(limit)
	}
	counted, busiest := int64(0), int64(0)
	for _, u := range days {
		counted += of(u)
		busiest = max(busiest, of(u))
	}
	full := 1.1 * float64(max(limit, total, counted))
	height := func(v float64) float64 { return round(lineFoot - v/full*(lineFoot-lineTop)) }
	p := plot{Name: f.name, Width: f.width, Height: plotHeight, Right: f.width - plotMargin, Unit: name,
		Title: fmt.Sprintf("%s of %s within the month, the limit is %s", write(total), name, most)}

	step, widest := roundUp(full/5), 0
	tick := func(v, y float64) {
		text := write(int64(v))
		widest = max(widest, utf8.RuneCountInString(text))
		p.Ticks = append(p.Ticks, plotLine{y, plotText{Y: y + halfText, Anchor: "end", Text: text}})
	}
	for v := 0.0; v <= full; v += step {
		tick(v, height(v))
	}
	tick(0, barFoot)
	if busiest > 0 {
		tick(float64(busiest), barTop)
	}
	p.Left = 2*plotMargin + digitWidth*float64(widest)
	for n := range p.Ticks {
		p.Ticks[n].Text.X = p.Left - plotMargin
	}

	width := (p.Right - p.Left) / float64(inMonth)
	var line strings.Builder
	fmt.Fprintf(&line, "M%g %g", p.Left, height(0))
	sum := int64(0)
	for n := range inMonth {
		x := p.Left + float64(n)*width
		day := plotDay{X: round(x + barGap*width), W: round((1 - 2*barGap) * width)}
		if n == 0 || (n+1)%5 == 0 {
			day.Name = plotText{round(x + width/2), plotNames, "middle", fmt.Sprint(n + 1)}
		}
		if n < len(days) {
			v := of(days[n])
			sum += v
			if v > 0 {
				day.H = round(max(1, float64(v)/float64(busiest)*(barFoot-barTop)))
				day.Y = round(barFoot - day.H)
				day.Title = fmt.Sprintf("%d: %s", n+1, write(v))
			}
			fmt.Fprintf(&line, " L%g %g", round(x+width), height(float64(sum)))
		}
		p.Days = append(p.Days, day)
	}
	p.Line = line.String()
	p.Area = fmt.Sprintf("%s V%g H%g Z", p.Line, height(0), p.Left)

	// What is written at the line's end and what the limits are called stay on different sides.
	end := round(p.Left + float64(len(days))*width)
	ending, beginning := plotText{X: end - besideLine, Anchor: "end"}, plotText{X: p.Left + besideLine, Anchor: "start"}
	if 2*len(days) < inMonth {
		ending, beginning = plotText{X: end + besideLine, Anchor: "start"}, plotText{X: p.Right, Anchor: "end"}
	}
	if counted != total {
		p.Adjusted = fmt.Sprintf("M%g %g V%g", end, height(float64(counted)), height(float64(total)))
		p.Adjustment = ending
		p.Adjustment.Text = "adjusted"
		p.Title += fmt.Sprintf(", %s of it counted", write(counted))
	}
	p.Limits = limitLines(i, limit, height, beginning)
	p.Limits[0].Text.Text = "limit, " + most
	p.Adjustment.Y = besideLines(height(float64(total)), total < counted, p.Limits)
	return p
}

// besideLines is where a text stands that is above the end of a line, or below it, and that none of the limits strikes
// through.
func besideLines(end float64, below bool, limits []plotLine) float64 {
	beside := func(line float64) float64 {
		if below {
			return line + 3*besideLine
		}
		return line - besideLine
	}
	y := beside(end)
	for _, l := range limits {
		if y-textAbove < l.Y && l.Y < y+textBelow {
			return round(beside(l.Y)) // the next one is further away than a text is high
		}
	}
	return round(y)
}

// limitLines are those of the limit and of the ends of further tiers that were passed: as many as leave room for what
// each is called.
func limitLines(i meter.Invoice, limit int64, height func(float64) float64, name plotText) (lines []plotLine) {
	line := func(tier int64) {
		name.Y = height(float64(tier)*float64(limit)) - besideLine
		name.Text = fmt.Sprintf("tier %s", grouped(tier))
		lines = append(lines, plotLine{name.Y + besideLine, name})
	}
	line(1)
	passed := i.Tiers() - 1
	apart := (height(0) - height(float64(passed)*float64(limit))) / float64(max(1, passed))
	step := int64(roundUp(textRoom / max(apart, 1e-9)))
	for tier := step; tier <= passed; tier += step {
		if height(float64(limit))-height(float64(tier)*float64(limit)) >= textRoom {
			line(tier)
		}
	}
	return lines
}

// roundUp is the smallest round number that is not below v, and at least 1.
func roundUp(v float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(max(1, v))))
	for _, factor := range []float64{1, 2, 5} {
		if factor*step >= v {
			return factor * step
		}
	}
	return 10 * step
}

func round(v float64) float64 { return math.Round(v*10) / 10 }
