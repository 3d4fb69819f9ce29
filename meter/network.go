package meter

import "net/netip"

// Within reports whether an address is in one of the account's networks.
func (a *Account) Within(addr netip.Addr) bool {
	addr = addr.Unmap()
	for _, network := range a.Networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// MayFlush reports whether a client at an address may have the account's mail delivered: from the
// account's networks, or from the MTA's own host, which is exactly 127.0.0.1 or ::1.
func (a *Account) MayFlush(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || addr == netip.IPv6Loopback() || a.Within(addr)
}

// Networks are those that may be one customer's: the address itself with IPv4; with IPv6 a /64, which is one link, a /56,
// which is a home, and a /48, which is a site (RFC 6177; RIPE-690, section 4.2). What one of them may take, two of the
// next may: it has more users, and yet is one customer most of the time. An address that is not valid is in none.
func Networks(addr netip.Addr) []netip.Prefix {
	addr = addr.Unmap().WithZone("")
	lengths := []int{64, 56, 48}
	switch {
	case !addr.IsValid():
		return nil
	case addr.Is4():
		lengths = []int{32}
	}
	networks := make([]netip.Prefix, len(lengths))
	for i, bits := range lengths {
		networks[i], _ = addr.Prefix(bits) // its error is a length that there is not
	}
	return networks
}
