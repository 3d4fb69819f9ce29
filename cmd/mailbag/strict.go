package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"unicode/utf8"
)

// A jsonValue is JSON of a sound text, with where it begins there.
type jsonValue struct {
	text json.RawMessage
	at   int
}

// sound is the value that a text has; an error says why it has none, and where.
func sound(text []byte) (jsonValue, *fault) {
	for rest := text; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if r == utf8.RuneError && size == 1 { // which encoding/json would take for U+FFFD
			return jsonValue{}, &fault{len(text) - len(rest), errors.New("it is not UTF-8")}
		}
		rest = rest[size:]
	}
	var whole json.RawMessage
	err := json.Unmarshal(text, &whole)
	if err == nil {
		return jsonValue{whole, len(text) - len(bytes.TrimLeft(text, " \t\r\n"))}, nil
	}
	at := len(text)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = min(at, int(syntax.Offset))
	}
	return jsonValue{}, &fault{at, err}
}

// members yields what an object has.
func (v jsonValue) members() iter.Seq2[string, jsonValue] {
	return func(yield func(string, jsonValue) bool) {
		d := json.NewDecoder(bytes.NewReader(v.text))
		d.Token() // the brace; all of it is sound
		for d.More() {
			key, _ := d.Token()
			if !yield(key.(string), v.next(d)) {
				return
			}
		}
	}
}

// elements is what a list has; nil for what is none.
func (v jsonValue) elements() []jsonValue {
	if v.text[0] != '[' {
		return nil
	}
	all := []jsonValue{}
	d := json.NewDecoder(bytes.NewReader(v.text))
	d.Token()
	for d.More() {
		all = append(all, v.next(d))
	}
	return all
}

// next is the next value in it that a decoder comes to.
func (v jsonValue) next(d *json.Decoder) jsonValue {
	var text json.RawMessage
	_ = d.Decode(&text) // the text is sound
	return jsonValue{text, v.at + int(d.InputOffset()) - len(text)}
}

// A fault is what is wrong at a place of a text.
type fault struct {
	at  int
	err error
}

// strictly reads an object into a struct whose fields are tagged with its keys, and returns all that is wrong. Other
// than encoding/json it takes no key for another that looks like it, wants every key that has no omitempty and that older
// files do not lack, each once, and no null but for a pointer.
func strictly(v jsonValue, into any) []fault {
	if v.text[0] != '{' {
		return []fault{{v.at, fmt.Errorf("%s is there in place of an object in {}", short(v.text))}}
	}
	var faults []fault
	var missing []string
	given := map[string]bool{}
	to := reflect.ValueOf(into).Elem()
	known := map[string]reflect.Value{}
	var needed []string
	for _, f := range reflect.VisibleFields(to.Type()) {
		if f.Anonymous {
			continue // what is in it follows
		}
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		known[key] = to.FieldByIndex(f.Index)
		if options != "omitempty" && f.Tag.Get("older") != "lacks" {
			needed = append(needed, key)
		}
	}
	for key, v := range v.members() {
		field, found := known[key]
		switch {
		case !found:
			faults = append(faults, fault{v.at, fmt.Errorf("the key %q is not known", key)})
		case given[key]:
			faults = append(faults, fault{v.at, fmt.Errorf("%s is there twice", key)})
		default:
			for _, f := range strictlyField(v, field) {
				faults = append(faults, fault{f.at, fmt.Errorf("%s: %w", key, f.err)})
			}
		}
		given[key] = true
	}
	for _, key := range needed {
		if !given[key] {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		err := fmt.Errorf("%s %s missing", strings.Join(missing, ", "), verb(int64(len(missing)), "is", "are"))
		faults = append([]fault{{v.at, err}}, faults...)
	}
	return faults
}

// strictlyField reads one value into a field.
func strictlyField(v jsonValue, field reflect.Value) []fault {
	kind := field.Type()
	if kind.Kind() == reflect.Map && v.text[0] == '{' {
		return strictlyMap(v, field)
	}
	if values, ok := field.Addr().Interface().(*[]jsonValue); ok && v.text[0] == '[' {
		*values = v.elements()
		return nil
	}
	null := string(v.text) == "null"
	if kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.String {
		for _, entry := range v.elements() {
			null = null || string(entry.text) == "null"
		}
	}
	if null && kind.Kind() != reflect.Pointer || json.Unmarshal(v.text, field.Addr().Interface()) != nil {
		return []fault{{v.at, fmt.Errorf("%s is not %s", short(v.text), described(kind))}}
	}
	return nil
}

// strictlyMap reads an object whose keys may be any, each once.
func strictlyMap(v jsonValue, field reflect.Value) []fault {
	kind := field.Type()
	field.Set(reflect.MakeMap(kind))
	var faults []fault
	for key, v := range v.members() {
		if field.MapIndex(reflect.ValueOf(key)).IsValid() {
			faults = append(faults, fault{v.at, fmt.Errorf("%s is there twice", key)})
			continue
		}
		entry := reflect.New(kind.Elem())
		var wrong []fault
		if kind.Elem().Kind() == reflect.Struct {
			wrong = strictly(v, entry.Interface())
		} else {
			wrong = strictlyField(v, entry.Elem())
		}
		for _, f := range wrong {
			faults = append(faults, fault{f.at, fmt.Errorf("%s: %w", key, f.err)})
		}
		field.SetMapIndex(reflect.ValueOf(key), entry.Elem())
	}
	return faults
}

// described is what JSON has for a type.
func described(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.String:
		return "a text"
	case reflect.Pointer:
		return described(t.Elem()) + " or null"
	case reflect.Map:
		if t.Elem().Kind() == reflect.String {
			return "an object in {} with texts"
		}
		return "an object in {}"
	case reflect.Slice:
		switch t.Elem().Kind() {
		case reflect.Uint8:
			return "a text in base64"
		case reflect.String:
			return "a list of texts in []"
		}
	}
	return "a list in []"
}

// short is the beginning of a value, for a message.
func short(text []byte) string {
	const most = 40
	line := strings.Join(strings.Fields(string(text[:min(len(text), 4*most)])), " ")
	if runes := []rune(line); len(runes) > most {
		line = string(runes[:most]) + "..."
	}
	return line
}
