package main

import "testing"

func FuzzParseTransfers(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "[]", `{"mailbag_accounts":1,"accounts":[]}`, `{"mailbag_accounts":2}`, `{"mailbag_accounts":1,"accounts":[{"name":"acme"}]}`,
		`{"mailbag_accounts":1,"accounts":[{"name":"acme","mode":"backup","recipients":"any","copies":"single","domains":["acme.example"],"hold":60,"base_price":"1.00"}]} {}`,
		`{"mailbag_accounts":1,"accounts":[{"name":"a","mode":"pop3","recipients":"any","copies":"single","networks":["::/0"],"verifiers":{"a":{"salt":"AAAA","iterations":-1}}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		all, faults := parseTransfers("file", text)
		for _, a := range all {
			if faults := a.Faults(); len(faults) > 0 {
				t.Errorf("%q gives an invalid account: %v", text, faults)
			}
		}
		if len(faults) > 0 && all != nil {
			t.Errorf("%q gives accounts and %v", text, faults)
		}
	})
}
