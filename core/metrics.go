package core

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wafermail/wafer/core/policy"
)

// metrics shows the server's counts to Prometheus. Labels are names out of the
// configuration and words that plugins chose, both bounded: never an address or
// anything else that a peer could make up.
type metrics struct{ s *Server }

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("wafer_"+name, help, labels, nil)
}

var (
	descVerdicts   = metric("policy_verdicts_total", "Verdicts of checks; verdict is error where on_error decided.", "policy", "check", "stage", "verdict")
	descReasons    = metric("policy_reasons_total", "Verdicts of checks by the reason that the plugin gave.", "policy", "check", "reason")
	descRefused    = metric("policy_refused_total", "Refusals of checks, enforced.", "policy", "check")
	descLatency    = metric("policy_seconds", "How long checks took, with waiting.", "policy", "check")
	descFuel       = metric("policy_fuel", "Units of fuel that checks burned.", "policy", "check")
	descPlugin     = metric("policy_plugin", "What plugins count themselves.", "policy", "check", "label")
	descOpen       = metric("connections", "Connections now.", "listener", "profile")
	descTotal      = metric("connections_total", "Connections so far.", "listener", "profile")
	descPanics     = metric("session_panics_total", "Sessions that ended in a bug.", "listener", "profile")
	descOwed       = metric("messages_owed", "Acknowledged messages that wait for a mailbox.")
	descQueued     = metric("queue_messages", "Messages in the queue by state.", "state")
	descOldest     = metric("queue_oldest_seconds", "Age of the oldest message in the queue.")
	descRunning    = metric("queue_deliveries", "Deliveries under way.")
	descDead       = metric("queue_destinations_suspended", "Destinations that are not tried for a while.")
	descAccepted   = metric("queue_accepted_total", "Messages that the queue has taken.")
	descResults    = metric("queue_recipients_total", "Outcomes of attempts, by recipient.", "result")
	descNotices    = metric("queue_notices_total", "Notices to senders.")
	descAside      = metric("queue_aside_total", "Messages that were set aside because they could not be handled.")
	descRelayed    = metric("relay_connections_total", "Connections to other hosts.")
	descRelayTLS   = metric("relay_tls_total", "TLS handshakes with other hosts by result (RFC 8460).", "result")
	descRecords    = metric("decisions_written_total", "Records in the decision log.")
	descDropped    = metric("decisions_dropped_total", "Records that the decision log could not take.")
	descGeneration = metric("generation", "Number of the configuration that serves.")
	descReloads    = metric("reloads_total", "Attempts to change the configuration.", "result")
	descRollout    = metric("rollout_percent", "Percent of the clients that a version of the policies is for, with what has become of it.", "rollout", "state")
	descTried      = metric("rollout_sessions_total", "Sessions that it has judged.", "rollout", "which")
	descUnasked    = metric("observers_dropped_total", "Calls of checks that only observe which were left out.")
	descTaped      = metric("tape_moments_total", "Moments that were to be recorded for a replay.", "result")
	descStarted    = metric("start_time_seconds", "When the server started, in seconds since 1970.")
)

// Describe sends nothing: which series there are depends on the configuration.
func (m metrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends what has been counted so far.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, n, labels...)
	}
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	for label, t := range m.s.current.Load().policy.Tallies() {
		owner, check, _ := strings.Cut(label, "/")
		failed := map[policy.Stage]uint64{}
		for _, v := range t.Verdicts {
			if v.Error {
				failed[v.Stage] += v.Count
				continue
			}
			counter(descVerdicts, float64(v.Count), owner, check, v.Stage.String(), v.Action.String())
		}
		for stage, n := range failed {
			counter(descVerdicts, float64(n), owner, check, stage.String(), "error")
		}
		for reason, n := range t.Reasons {
			counter(descReasons, float64(n), owner, check, strings.ToValidUTF8(reason, "?"))
		}
		for label, n := range t.Metrics {
			gauge(descPlugin, float64(n), owner, check, label)
		}
		counter(descRefused, float64(t.Refused), owner, check)
		ch <- histogram(descLatency, t.Latency, policy.LatencyBounds(), owner, check)
		ch <- histogram(descFuel, t.Fuel, policy.FuelBounds(), owner, check)
	}
	for _, d := range m.s.doors() {
		l := d.stats()
		gauge(descOpen, float64(l.Open), d.name, d.profile)
		counter(descTotal, float64(l.Total), d.name, d.profile)
		counter(descPanics, float64(l.Panics), d.name, d.profile)
	}
	gauge(descOwed, float64(m.s.deliver.Owed()))
	q := m.s.queue.Stats()
	for state, n := range map[string]int{"active": q.Active, "deferred": q.Deferred + q.Parked, "hold": q.Held} {
		gauge(descQueued, float64(n), state)
	}
	if !q.Oldest.IsZero() {
		gauge(descOldest, time.Since(q.Oldest).Seconds())
	}
	gauge(descRunning, float64(q.Running))
	gauge(descDead, float64(q.Suspended))
	counter(descAccepted, float64(q.Accepted))
	for result, n := range map[string]int64{"sent": q.Sent, "deferred": q.Deferrals, "failed": q.Failed, "expired": q.Expired} {
		counter(descResults, float64(n), result)
	}
	counter(descNotices, float64(q.Notices))
	counter(descAside, float64(q.Aside))
	r := m.s.relay.Stats()
	counter(descRelayed, float64(r.Opened))
	for result, n := range r.TLS {
		counter(descRelayTLS, float64(n), result)
	}
	gauge(descStarted, float64(m.s.started.Unix()))
	gauge(descGeneration, float64(m.s.current.Load().number))
	if r := m.s.current.Load().rollout; r != nil {
		x := r.status()
		gauge(descRollout, x.Percent, x.Name, x.State)
		counter(descTried, float64(x.Sessions), x.Name, "all")
		counter(descTried, float64(x.Refused), x.Name, "refused")
	}
	if sh := m.s.set.Shadow; sh != nil {
		counter(descUnasked, float64(sh.Dropped()))
	}
	m.s.reloads.mu.Lock()
	counter(descReloads, float64(m.s.reloads.good), "good")
	counter(descReloads, float64(m.s.reloads.bad), "bad")
	m.s.reloads.mu.Unlock()
	if t := m.s.tape; t != nil {
		counter(descTaped, float64(t.Written()), "written")
		counter(descTaped, float64(t.Dropped()), "dropped")
	}
	if log := m.s.decisions; log != nil {
		counter(descRecords, float64(log.Written()))
		counter(descDropped, float64(log.Dropped()))
	}
}

// histogram is h in Prometheus' form, whose classes hold those below them.
func histogram(d *prometheus.Desc, h policy.Histogram, bounds []float64, labels ...string) prometheus.Metric {
	buckets := map[float64]uint64{}
	var n uint64
	for i, count := range h.Counts {
		n += count
		if i < len(bounds) {
			buckets[bounds[i]] = n
		}
	}
	return prometheus.MustNewConstHistogram(d, n, h.Sum, buckets, labels...)
}

// metricsHandler answers GET /metrics.
func (s *Server) metricsHandler() (http.Handler, error) {
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(metrics{s}); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{}), nil
}

// serveMetrics answers Prometheus on the address that the configuration names.
func (s *Server) serveMetrics(h http.Handler) (stop func()) {
	if s.metricsAt == nil {
		return func() {}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(s.metricsAt); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("metrics", "err", err)
		}
	}()
	return func() {
		_ = srv.Close() // it only reads
		<-done
	}
}

// listenMetrics opens the metrics' port while the rights to do so are there.
func (s *Server) listenMetrics() error {
	if s.config.Metrics == "" {
		return nil
	}
	ln, err := net.Listen("tcp", s.config.Metrics)
	if err != nil {
		return fmt.Errorf("listen for metrics on %s: %w", s.config.Metrics, err)
	}
	s.metricsAt = ln
	return nil
}
