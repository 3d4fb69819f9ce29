package readings

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// A File is where the readings are written to, and read from at each scrape. It is a [prometheus.Gatherer].
type File string

// Default is that of mailbag-doctor.service.
const Default File = "/run/mailbag-doctor/metrics.prom"

// maxFile bounds what is read of it, in octets. Some 3,000 are usual.
const maxFile = 64 << 10

// Gather returns what is in the file. A file that is not there, or is none of the doctor's, has nothing, and is no error, which
// would take the metrics of the daemon along.
func (f File) Gather() ([]*dto.MetricFamily, error) {
	text, err := f.read()
	if err != nil {
		return nil, nil
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	there, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, nil
	}
	var known []*dto.MetricFamily
	for _, m := range Metrics {
		if family := there[m.Name]; family.GetType() == dto.MetricType_GAUGE {
			known = append(known, family)
		}
	}
	// Gatherers see that no value is there twice.
	sound, err := prometheus.Gatherers{prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return known, nil })}.Gather()
	if err != nil {
		return nil, nil
	}
	return sound, nil
}

var errNotOurs = errors.New("not a file of readings")

func (f File) read() (string, error) {
	// A pipe without a writer would be waited for.
	file, err := os.OpenFile(string(f), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return "", errors.Join(errNotOurs, err)
	}
	var text strings.Builder
	n, err := io.Copy(&text, io.LimitReader(file, maxFile+1))
	if n > maxFile {
		return "", errNotOurs
	}
	return text.String(), err
}
