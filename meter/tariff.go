package meter

import (
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

// A Tariff says what a month costs. One tier is so many messages or octets, whichever comes first; 0
// is no limit.
type Tariff struct {
	Messages  int64 // messages in a tier
	Bytes     int64 // octets in a tier; 1 GB is 10^9
	BasePrice Cents // of a month with its first tier
	TierPrice Cents // of each further tier
	Currency  string
}

// For is the tariff with the account's own limits, where it has any.
func (t Tariff) For(a *Account) Tariff {
	if a.Messages > 0 {
		t.Messages = a.Messages
	}
	if a.Bytes > 0 {
		t.Bytes = a.Bytes
	}
	return t
}

// Tiers is the number of tiers that the usage fills or begins, at least 1.
func (t Tariff) Tiers(u Usage) int64 {
	return max(1, begun(u.Messages, t.Messages), begun(u.Bytes, t.Bytes))
}

// Charge is what a month with this usage costs. An unused month costs the base price; there is no
// proration. The amount stays at the largest that Cents can hold rather than overflow.
func (t Tariff) Charge(u Usage) Cents {
	further := t.Tiers(u) - 1
	if t.TierPrice > 0 && further > (math.MaxInt64-int64(t.BasePrice))/int64(t.TierPrice) {
		return math.MaxInt64
	}
	return t.BasePrice + Cents(further)*t.TierPrice
}

// Reached reports whether so many tiers are used up, so that the next message is above them.
func (t Tariff) Reached(u Usage, tiers int64) bool {
	full := func(used, size int64) bool { return size > 0 && used/size >= tiers }
	return full(u.Messages, t.Messages) || full(u.Bytes, t.Bytes)
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
