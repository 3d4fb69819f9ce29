package main

import (
	"testing"

	"pgregory.net/rapid"

	"mailbag/meter"
)

func TestNoLimitStrikesTheNameOfAnAdjustmentThrough(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		counted := rapid.Int64Range(0, 5000).Draw(t, "counted")
		adjusted := rapid.Int64Range(-counted, 5000).Draw(t, "adjusted")
		i := meter.Invoice{
			Counted:     meter.Usage{Messages: counted},
			Adjustments: []meter.Adjustment{{Usage: meter.Usage{Messages: adjusted}}},
			Tariff:      meter.Tariff{Messages: rapid.Int64Range(1, 5000).Draw(t, "limit"), Bytes: 1e9},
		}
		for _, f := range frames {
			p := newPlot(f, i, []meter.Usage{i.Counted}, 31)
			if p.Adjusted == "" {
				continue
			}
			for _, l := range p.Limits {
				if top, foot := p.Adjustment.Y-textAbove, p.Adjustment.Y+textBelow; top < l.Y && l.Y < foot {
					t.Fatalf("%s: the text from %g to %g has the line of %s at %g", f.name, top, foot, l.Text.Text, l.Y)
				}
			}
			if p.Adjustment.Y < lineTop-textAbove || p.Adjustment.Y > barTop {
				t.Fatalf("%s: the text is at %g", f.name, p.Adjustment.Y)
			}
		}
	})
}
