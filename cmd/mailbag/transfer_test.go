package main

import "testing"

func FuzzParseTransfers(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "[]", `{"mailbag_accounts":1,"accounts":[]}`, `{"mailbag_accounts":2}`, `{"mailbag_accounts":1,"accounts":[{"name":"acme"}]}`,
		`{"mailbag_accounts":1,"accounts":[{"name":"acme","mode":"backup","recipients":"any","copies":"single","domains":["acme.example"],"hold":60,"base_price":"1.00"}]} {}`,
		`{"mailbag_accounts":1,"accounts":[{"name":"a","mode":"pop3","recipients":"any","copies":"single","networks":["::/0"],"verifiers":{"a":{"salt":"AAAA","iterations":-1}}}]}`,
		`{"mailbag_accounts":1,"plans":[{"name":"gold","messages":5,"bytes":0,"on_limit":"","max_tiers":0,"base_price":"1.00","tier_price":null}],"accounts":[]}`,
		`{"mailbag_accounts":1,"plans":[{"name":"gold","messages":-5},{"name":"gold","base_price":"1.0"}],"accounts":[{"name":"a","plan":"tin"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		all, plans, faults := parseTransfers("file", text)
		for _, p := range plans {
			if err := p.Validate(); err != nil {
				t.Errorf("%q gives an invalid plan: %v", text, err)
			}
		}
		for _, a := range all {
			if faults := a.Faults(); len(faults) > 0 {
				t.Errorf("%q gives an invalid account: %v", text, faults)
			}
		}
		if len(faults) > 0 && (all != nil || plans != nil) {
			t.Errorf("%q gives accounts and %v", text, faults)
		}
	})
}
