package mta

// Worded is one of the errors of this package in the words of one MTA.
func Worded(kind error, text string) error { return worded{kind, text} }

type worded struct {
	kind error
	text string
}

func (w worded) Error() string { return w.text }
func (w worded) Unwrap() error { return w.kind }
