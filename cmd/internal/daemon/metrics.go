package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"mailbag/cmd/internal/version"
)

// NewRegistry returns a registry that holds what every daemon shows: the Go runtime, the process,
// mailbag_build_info with the program, its version and Go's as labels, and by which settings it goes.
func NewRegistry(program string, now Settings) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "mailbag_build_info",
		Help:        "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{"program": program, "version": version.String(), "goversion": runtime.Version()},
	})
	build.Set(1)
	hash := func(name, help string, of func(reload, restart float64) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return of(now().Hashes(program)) })
	}
	r.MustRegister(build,
		hash(ReloadHash, "Hash of the settings in force that change with a reload.", func(reload, _ float64) float64 { return reload }),
		hash(RestartHash, "Hash of the settings in force that change with a restart.", func(_, restart float64) float64 { return restart }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Metrics by which it is seen that a daemon goes by other settings than those of the file; see [settings.Settings.Hashes].
const (
	ReloadHash  = "mailbag_settings_reload_hash"
	RestartHash = "mailbag_settings_restart_hash"
)

// A MetricsServer answers GET /metrics by HTTP, and nothing else.
type MetricsServer struct {
	http *http.Server
	log  *slog.Logger
	done chan struct{}
}

// Bounds of one scrape. A scraper that is slow or greedy costs no more than this.
const (
	scrapeTime    = 10 * time.Second
	scrapesAtOnce = 4
	maxHeader     = 16 << 10 // octets
)

// ServeMetrics begins to answer on the listeners, which it closes in the end.
func ServeMetrics(listeners []net.Listener, from prometheus.Gatherer, log *slog.Logger) *MetricsServer {
	mux := http.NewServeMux()
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	mux.Handle("GET /metrics", promhttp.HandlerFor(from, promhttp.HandlerOpts{
		ErrorLog:            errorLog,
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             scrapeTime,
	}))
	m := &MetricsServer{
		http: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: scrapeTime,
			ReadTimeout:       scrapeTime,
			WriteTimeout:      2 * scrapeTime,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          errorLog,
		},
		log:  log,
		done: make(chan struct{}),
	}
	ended := make(chan struct{})
	for _, l := range listeners {
		go func() {
			defer func() { ended <- struct{}{} }()
			if err := m.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				log.Error("metrics are no longer served", "address", l.Addr().String(), "error", err)
			}
		}()
	}
	go func() {
		defer close(m.done)
		for range listeners {
			<-ended
		}
	}()
	return m
}

// Close answers the scrapes that are under way until ctx is done, and stops.
func (m *MetricsServer) Close(ctx context.Context) {
	if err := m.http.Shutdown(ctx); err != nil {
		m.log.Warn("metrics: scrapes were cut off", "error", errors.Join(err, m.http.Close()))
	}
	<-m.done
}
