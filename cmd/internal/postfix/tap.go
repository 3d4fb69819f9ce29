package postfix

import "slices"

// A Tap is where accepted messages are counted. Exactly one of the two is wired in, so they need not know of each
// other.
type Tap string

const (
	PolicyTap Tap = "policy" // at END-OF-MESSAGE of the policy service: nothing can refuse the message afterwards
	MilterTap Tap = "milter" // by the last milter, which sees what all others let pass
)

// refusers are parameters that, when not empty, let something refuse a message after the policy service has answered.
var refusers = []string{"smtpd_milters", "smtpd_milter_maps", "smtpd_proxy_filter", "header_checks", "mime_header_checks",
	"nested_header_checks", "body_checks", "milter_header_checks"}

// choose returns the tap for this configuration, and what speaks for the milter: names of parameters, those of
// master.cf as service/type/parameter.
func (c configuration) choose() (Tap, []string) {
	var because []string
	for _, name := range refusers {
		if len(words(cut(c.expanded[name], milterTap))) > 0 {
			because = append(because, name)
		}
		for _, s := range c.services {
			if v, ok := s.options[name]; ok && len(words(cut(v, milterTap))) > 0 {
				because = append(because, s.id()+"/"+name)
			}
		}
	}
	if len(because) == 0 {
		return PolicyTap, nil
	}
	// mime_header_checks and nested_header_checks follow header_checks by default; saying so three times helps nobody.
	if slices.Contains(because, "header_checks") {
		because = slices.DeleteFunc(because, func(s string) bool {
			return (s == "mime_header_checks" || s == "nested_header_checks") && c.inForce[s] == "$header_checks"
		})
	}
	return MilterTap, because
}
