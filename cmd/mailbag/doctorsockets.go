package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// A daemon may open ports from here on by itself.
const firstFreePort = 1024

// listens reports whether a socket unit has the address of a front, as far as a port or a path says it.
func (u unit) listens(f front) bool {
	wanted := f.at.Address
	if _, port, err := net.SplitHostPort(wanted); err == nil && f.at.Network != "unix" {
		wanted = ":" + port
	}
	for line := range strings.Lines(u["Listen"]) {
		at, _, _ := strings.Cut(line, " ") // what follows is the type
		if at == wanted || wanted[0] == ':' && strings.HasSuffix(at, wanted) {
			return true
		}
	}
	return false
}

// examineSocket compares a front with the .socket unit that is to hold it; nil: that is as it should be. In what is found
// after asked the front did not answer.
func (u unitList) examineSocket(name string, f front, answers bool) *diagnosis {
	socket, ok := u[f.socket]
	if !ok || socket.masked() {
		return nil
	}
	program := "mailbag-" + name
	d := &diagnosis{Part: name, Result: illness, cause: down(program)}
	_, text, _ := net.SplitHostPort(f.at.Address)
	port, _ := strconv.Atoi(text)
	switch {
	case socket.active() && !socket.listens(f) && !answers:
		at, _, _ := strings.Cut(socket["Listen"], " ")
		d.Text = fmt.Sprintf("the settings have %s listen at %s, but %s does at %s, which is what counts", program, f.at, f.socket, at)
		d.Remedy = fmt.Sprintf("write the same into both (systemctl edit %s), then run: systemctl stop %[1]s %s; systemctl start %[2]s", f.socket, program)
	case !socket.active() && port > 0 && port < firstFreePort && socket["UnitFileState"] == "disabled" && !answers:
		d.Text = fmt.Sprintf("%s may not open %s by itself, and %s is not enabled", program, f.at, f.socket)
		d.Remedy = fmt.Sprintf("run: systemctl enable %s; systemctl restart %s", f.socket, program)
		if !socket.listens(f) {
			d.Remedy = fmt.Sprintf("write ListenStream=, ListenStream=%s below [Socket] (systemctl edit %s), then %s", text, f.socket, d.Remedy)
		}
	case !socket.active() && socket["UnitFileState"] == "disabled" && socket.listens(f) && answers:
		d.Result, d.cause = doubt, ""
		d.Text = fmt.Sprintf("%s is not enabled: %s holds %s itself, and customers are refused there while it restarts", f.socket, program, f.at)
		d.Remedy = fmt.Sprintf("run: systemctl enable %s; systemctl restart %s", f.socket, program)
	default:
		return nil
	}
	return d
}
