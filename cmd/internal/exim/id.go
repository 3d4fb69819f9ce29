package exim

// The parts of a queue ID, in characters: seconds, process ID, fraction of a second.
var idForms = [][3]int{{6, 6, 2}, {6, 11, 4}} // the latter from Exim 4.97 on

// IsID reports whether s is a queue ID of Exim, in one of its two forms, to the letter.
func IsID(s string) bool {
	for _, form := range idForms {
		if len(s) != form[0]+form[1]+form[2]+2 {
			continue
		}
		first, second := form[0], form[0]+1+form[1]
		for i := range len(s) {
			if hyphen := i == first || i == second; hyphen && s[i] != '-' || !hyphen && !base62(s[i]) {
				return false
			}
		}
		return true
	}
	return false
}

func base62(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}
