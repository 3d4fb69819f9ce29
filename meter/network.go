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
