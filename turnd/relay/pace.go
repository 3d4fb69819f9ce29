package relay

import "time"

// A pace is how long messages took on a channel, from MAIL to the last reply.
type pace struct {
	least time.Duration // of any
	mean  time.Duration // of the latest, smoothed
}

// took adds a delivery.
func (p *pace) took(d *Delivery) {
	took := time.Since(d.since)
	if p.least == 0 || took < p.least {
		p.least = took
	}
	if p.mean == 0 {
		p.mean = took
	}
	p.mean += (took - p.mean) / 16
}
