package exim

import (
	"mailbag/meter"
	"mailbag/policy/routes"
)

// Tables are the file that Exim reads.
func (in Instance) Tables(_ routes.Sockets, d *meter.Directory) []routes.Table {
	return routes.Exim(d)
}
