package popd

import (
	"errors"
	"net/netip"

	"mailbag/meter"
	"mailbag/meter/login"
)

var errNotPOP3 = errors.New("the account is not a pop3 account")

// Admit lets in who has mail here: it is for [login.Config].
func Admit(id login.Identity, _ netip.Addr) error {
	if id.Account.Mode != meter.POP3 {
		return errNotPOP3
	}
	return nil
}
