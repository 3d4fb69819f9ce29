package control

import (
	"errors"
	"net/http"

	"mailbag/meter"
	"mailbag/turnd/turn"
)

var (
	// ErrDown says that mailbag-turnd does not answer on its control socket.
	ErrDown = errors.New("mailbag-turnd does not answer")

	// ErrNotDialled says that no turn is opened to the account from here, by its mode.
	ErrNotDialled = errors.New("no mail is delivered to this account's host on request")

	// ErrSuspended says that the account is suspended, and its mail held.
	ErrSuspended = errors.New("the account is suspended")

	// ErrNoTurn says that no turn to the account is open.
	ErrNoTurn = errors.New("no turn is open")

	// ErrMTA says that the daemon cannot list or release what waits.
	ErrMTA = errors.New("the mail of turns cannot be had")

	errRequest = errors.New("not a request that the control socket takes")
)

// refusals are the errors that keep their meaning on their way through the socket.
var refusals = []struct {
	code   string
	status int
	err    error
}{
	{"nothing-waits", http.StatusConflict, turn.ErrNothingWaits},
	{"open", http.StatusConflict, turn.ErrOpen},
	{"too-many", http.StatusServiceUnavailable, turn.ErrTooMany},
	{"not-delivered", http.StatusServiceUnavailable, turn.ErrNotDelivered},
	{"unreachable", http.StatusBadGateway, turn.ErrUnreachable},
	{"self", http.StatusConflict, turn.ErrSelf},
	{"closing", http.StatusServiceUnavailable, turn.ErrClosing},
	{"unavailable", http.StatusServiceUnavailable, meter.ErrUnavailable},
	{"no-account", http.StatusNotFound, meter.ErrNoAccount},
	{"not-dialled", http.StatusConflict, ErrNotDialled},
	{"suspended", http.StatusConflict, ErrSuspended},
	{"no-turn", http.StatusNotFound, ErrNoTurn},
	{"mta", http.StatusBadGateway, ErrMTA},
	{"request", http.StatusBadRequest, errRequest},
}

// A refusal is an error on its way through the socket.
type refusal struct {
	Code string `json:"code"` // empty: nothing that has a name
	Text string `json:"error"`
}

func refuse(w http.ResponseWriter, err error) {
	for _, known := range refusals {
		if errors.Is(err, known.err) {
			answer(w, known.status, refusal{known.code, err.Error()})
			return
		}
	}
	answer(w, http.StatusInternalServerError, refusal{Text: err.Error()})
}

// err is the error that the server had.
func (r refusal) err() error {
	for _, known := range refusals {
		if r.Code == known.code {
			return &remote{r.Text, known.err}
		}
	}
	return errors.New(r.Text)
}

// remote is an error with the server's text.
type remote struct {
	text string
	is   error
}

func (e *remote) Error() string { return e.text }
func (e *remote) Unwrap() error { return e.is }
