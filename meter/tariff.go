package meter

import (
	"cmp"
	"database/sql/driver"
	"fmt"
	"math"
)

// Cents is money in hundredths of the currency's unit.
type Cents int64

// String is the amount with two decimals, for example 40.00.
func (c Cents) String() string {
	if c < 0 {
		return "-" + (-c).String()
	}
	return fmt.Sprintf("%d.%02d", int64(c)/100, int64(c)%100)
}

// Plus is the sum of two amounts that are not negative. It stays at the largest that Cents can hold.
func (c Cents) Plus(other Cents) Cents {
	if c > math.MaxInt64-other {
		return math.MaxInt64
	}
	return c + other
}

// A Price is one that an account may have of its own; the zero value is none.
type Price struct {
	Set   bool
	Cents Cents
}

// Scan reads a price from the ledger.
func (p *Price) Scan(value any) error {
	cents, set := value.(int64)
	if value != nil && !set {
		return fmt.Errorf("%v is not a price", value)
	}
	*p = Price{set, Cents(cents)}
	return nil
}

// Value is what the ledger keeps of a price.
func (p Price) Value() (driver.Value, error) {
	if !p.Set {
		return nil, nil
	}
	return int64(p.Cents), nil
}

// or is the price, or another where there is none.
func (p Price) or(other Cents) Cents {
	if p.Set {
		return p.Cents
	}
	return other
}

// A Tariff says what a month costs. One tier is so many messages or octets, whichever comes first; 0
// is no limit.
type Tariff struct {
	Messages  int64 // messages in a tier
	Bytes     int64 // octets in a tier; 1 GB is 10^9
	BasePrice Cents // of a month with its first tier
	TierPrice Cents // of each further tier
	Currency  string
	OnLimit   OnLimit // what happens to mail above the first tier; empty: [Bill]
	MaxTiers  int64   // with bill: how many there can be; 0: no bound
	Prorate   bool    // of an account's first month the base price is by days; see [Invoice.Base]
}

// For is the tariff with the account's limits and prices, where it or its plan has any, and with its bound.
func (t Tariff) For(a *Account) Tariff {
	own := a.InForce()
	t.Messages = cmp.Or(own.Messages, t.Messages)
	t.Bytes = cmp.Or(own.Bytes, t.Bytes)
	t.BasePrice = own.BasePrice.or(t.BasePrice)
	t.TierPrice = own.TierPrice.or(t.TierPrice)
	t.OnLimit = cmp.Or(own.OnLimit, t.OnLimit)
	t.MaxTiers = own.MaxTiers
	return t
}

// Bound is the number of tiers after which no mail is accepted; 0 is no bound.
func (t Tariff) Bound() int64 {
	switch t.OnLimit {
	case Defer, Reject:
		return 1
	}
	return t.MaxTiers
}

// Billed is the part of the usage that is billed. The message that crosses the bound is the last one that
// comes in, and what it has above the bound begins no further tier. Where the bound is passed without that
// message of so many octets, another limit let the mail in, or an adjustment made it so: all of it is billed.
//
// BUGS: the last one is that of the latest day. Where two machines count in the moment of midnight, and the message that crosses the
// bound comes in after one of the new day, it is not found, and the tier that it begins is billed. To know it, each
// message would have to touch the days after its own.
func (t Tariff) Billed(u Usage, last int64) Usage {
	bound := t.Bound()
	if bound > 0 && t.Bytes > 0 && u.Bytes/t.Bytes >= bound && !t.Reached(Usage{u.Messages - 1, u.Bytes - last}, bound) {
		u.Bytes = bound * t.Bytes
	}
	return u
}

// Tiers is the number of tiers that the usage fills or begins, at least 1.
func (t Tariff) Tiers(u Usage) int64 {
	return max(1, begun(u.Messages, t.Messages), begun(u.Bytes, t.Bytes))
}

// Decided is the limit that makes the number of tiers: "messages", "bytes" or "both", and empty where
// neither is passed.
func (t Tariff) Decided(u Usage) string {
	messages, bytes := begun(u.Messages, t.Messages), begun(u.Bytes, t.Bytes)
	switch {
	case max(messages, bytes) <= 1:
		return ""
	case messages > bytes:
		return "messages"
	case bytes > messages:
		return "bytes"
	}
	return "both"
}

// Nearer is the limit of which the usage is the greater part, as what is used of it and how much it is.
// Without any limit both are 0.
func (t Tariff) Nearer(u Usage) (used, limit int64, bytes bool) {
	if t.Bytes > 0 && (t.Messages == 0 || float64(u.Bytes)/float64(t.Bytes) > float64(u.Messages)/float64(t.Messages)) {
		return u.Bytes, t.Bytes, true
	}
	if t.Messages > 0 {
		return u.Messages, t.Messages, false
	}
	return 0, 0, false
}

// Charge is what a whole month with this usage costs. An unused month costs the base price. The amount stays at the largest that Cents can hold rather than overflow.
func (t Tariff) Charge(u Usage) Cents {
	further := t.Tiers(u) - 1
	if t.TierPrice > 0 && further > (math.MaxInt64-int64(t.BasePrice))/int64(t.TierPrice) {
		return math.MaxInt64
	}
	return t.BasePrice + Cents(further)*t.TierPrice
}

// Reached reports whether so many tiers are used up, so that the next message is above them.
func (t Tariff) Reached(u Usage, tiers int64) bool {
	full := t.Full(tiers)
	return full.Messages > 0 && u.Messages >= full.Messages || full.Bytes > 0 && u.Bytes >= full.Bytes
}

// Full is the least usage with which so many tiers are [Tariff.Reached]: in messages, or in octets; 0 is no limit.
func (t Tariff) Full(tiers int64) Usage {
	full := func(size int64) int64 {
		if size > math.MaxInt64/tiers {
			return math.MaxInt64
		}
		return size * tiers
	}
	return Usage{full(t.Messages), full(t.Bytes)}
}

// begun is ⌈used / size⌉.
func begun(used, size int64) int64 {
	if size == 0 {
		return 0
	}
	n := used / size
	if used%size > 0 {
		n++
	}
	return n
}
