package fairness

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/kit/clock"
)

// metrics have upstream's names. What can be read off the levels is read when
// asked for.
type metrics struct {
	c                                *Controller
	rejected, dispatched, noRoom     *prometheus.CounterVec
	wait, execution, seats, lengths  *prometheus.HistogramVec
	watchers                         *prometheus.HistogramVec
	inqueue, inqueueSeats            *prometheus.Desc
	executing, executingSeats        *prometheus.Desc
	nominal, lower, upper, current   *prometheus.Desc
	high, average, deviation, smooth *prometheus.Desc
	target, fair, now                *prometheus.Desc
	use, load, want, mix             *prometheus.Desc
}

const space = "apiserver_flowcontrol_"

func newMetrics(c *Controller) (*metrics, error) {
	level, flow := []string{"priority_level"}, []string{"priority_level", "flow_schema"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: space + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: space + name, Help: help, Buckets: buckets}, labels)
	}
	desc := func(name, help string, labels []string) *prometheus.Desc {
		return prometheus.NewDesc(space+name, help, labels, nil)
	}
	times := []float64{0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30}
	m := &metrics{
		c:          c,
		rejected:   counter("rejected_requests_total", "Number of requests rejected by API Priority and Fairness subsystem", "priority_level", "flow_schema", "reason"),
		dispatched: counter("dispatched_requests_total", "Number of requests executed by API Priority and Fairness subsystem", flow...),
		noRoom:     counter("request_dispatch_no_accommodation_total", "Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats", flow...),
		wait:       histogram("request_wait_duration_seconds", "Length of time a request spent waiting in its queue", times, "priority_level", "flow_schema", "execute"),
		execution:  histogram("request_execution_seconds", "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem", times, "priority_level", "flow_schema", "type"),
		seats:      histogram("work_estimated_seats", "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness", []float64{1, 2, 4, 8, 16, 32, 64, 100}, flow...),
		lengths:    histogram("request_queue_length_after_enqueue", "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued", []float64{0, 10, 25, 50, 100, 250, 500, 1000}, flow...),
		watchers:   histogram("watch_count_samples", "count of watchers for mutating requests in API Priority and Fairness", []float64{0, 1, 10, 100, 1000, 10000}, flow...),

		inqueue:        desc("current_inqueue_requests", "Number of requests currently pending in queues of the API Priority and Fairness subsystem", flow),
		inqueueSeats:   desc("current_inqueue_seats", "Number of seats currently pending in queues of the API Priority and Fairness subsystem", flow),
		executing:      desc("current_executing_requests", "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem", flow),
		executingSeats: desc("current_executing_seats", "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem", flow),
		nominal:        desc("nominal_limit_seats", "Nominal number of execution seats configured for each priority level", level),
		lower:          desc("lower_limit_seats", "Configured lower bound on number of execution seats available to each priority level", level),
		upper:          desc("upper_limit_seats", "Configured upper bound on number of execution seats available to each priority level", level),
		current:        desc("current_limit_seats", "current derived number of execution seats available to each priority level", level),
		high:           desc("demand_seats_high_watermark", "High watermark, over last adjustment period, of demand_seats", level),
		average:        desc("demand_seats_average", "Time-weighted average, over last adjustment period, of demand_seats", level),
		deviation:      desc("demand_seats_stdev", "Time-weighted standard deviation, over last adjustment period, of demand_seats", level),
		smooth:         desc("demand_seats_smoothed", "Smoothed seat demands", level),
		target:         desc("target_seats", "Seat allocation targets", level),
		fair:           desc("seat_fair_frac", "Fair fraction of server's concurrency to allocate to each priority level that can use it", nil),
		now:            desc("current_r", "R(time of last change)", level),
		use:            desc("priority_level_seat_utilization", "Observations, at the end of every nanosecond, of utilization of seats for any stage of execution (but only initial stage for WATCHes)", append(level, "phase")),
		load:           desc("priority_level_request_utilization", "Observations, at the end of every nanosecond, of number of requests (as a fraction of the relevant limit) waiting or in any stage of execution (but only initial stage for WATCHes)", append(level, "phase")),
		want:           desc("demand_seats", "Observations, at the end of every nanosecond, of (the number of seats each priority level could use) / (nominal number of seats for that level)", level),
		mix:            desc("read_vs_write_current_requests", "Observations, at the end of every nanosecond, of the number of requests (as a fraction of the relevant limit) waiting or in regular stage of execution", []string{"phase", "request_kind"}),
	}
	if c.d.Metrics == nil {
		return m, nil
	}
	var errs []error
	for _, x := range []prometheus.Collector{m.rejected, m.dispatched, m.noRoom, m.wait, m.execution, m.seats, m.lengths, m.watchers, m} {
		errs = append(errs, c.d.Metrics.Register(x))
	}
	return m, errors.Join(errs...)
}

// flowStats are what a schema's requests do at a level. The numbers are guarded
// by the level's lock.
type flowStats struct {
	met                   *metrics
	level, schema         string
	executing, seats      int
	waiting, waitingSeats int

	dispatched, noRoom         prometheus.Counter
	waited, served, watched    prometheus.Observer
	estimated, queued, watches prometheus.Observer
}

func (m *metrics) flow(level, schema string) *flowStats {
	return &flowStats{
		met: m, level: level, schema: schema,
		dispatched: m.dispatched.WithLabelValues(level, schema), noRoom: m.noRoom.WithLabelValues(level, schema),
		waited: m.wait.WithLabelValues(level, schema, "true"),
		served: m.execution.WithLabelValues(level, schema, "regular"), watched: m.execution.WithLabelValues(level, schema, "watch"),
		estimated: m.seats.WithLabelValues(level, schema), queued: m.lengths.WithLabelValues(level, schema),
		watches: m.watchers.WithLabelValues(level, schema),
	}
}

func (f *flowStats) length(n int) { f.queued.Observe(float64(n)) }

// began counts a request that may be served.
func (f *flowStats) began(t *ticket) {
	f.dispatched.Inc()
	if t.go_ != nil {
		f.waited.Observe(t.started.Sub(t.arrived).Seconds())
	} else {
		f.waited.Observe(0)
	}
}

func (f *flowStats) done(t *ticket, now time.Time) {
	o := f.served
	if t.watch {
		o = f.watched
	}
	o.Observe(now.Sub(t.started).Seconds())
}

// refused counts a request that may not.
func (f *flowStats) refused(t *ticket, reason string) {
	f.met.rejected.WithLabelValues(f.level, f.schema, reason).Inc()
	if reason == timedOut || reason == cancelled {
		f.met.wait.WithLabelValues(f.level, f.schema, "false").Observe(clock.Since(t.arrived).Seconds())
	}
}

// levelMetrics are histograms over time: how long a ratio was in each bucket.
type levelMetrics struct{ seats, executing, waiting, demand ratio }

func newLevelMetrics() *levelMetrics {
	requests := []float64{0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1}
	return &levelMetrics{
		seats:     newRatio([]float64{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1}),
		executing: newRatio(requests), waiting: newRatio(requests),
		demand: newRatio([]float64{0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.7, 2, 2.8, 4, 6}),
	}
}

// observe counts what was so for dt. l is locked.
func (m *levelMetrics) observe(dt time.Duration, l *level) {
	if dt <= 0 {
		return
	}
	limit := float64(max(l.limit, 1))
	m.seats.add(dt, float64(l.seats)/limit)
	m.executing.add(dt, float64(l.executing)/limit)
	m.waiting.add(dt, float64(l.waiting)/float64(max(l.deck*l.length, 1)))
	m.demand.add(dt, float64(l.wants())/float64(max(l.bounds.nominal, 1)))
}

// ratio is a histogram of nanoseconds.
type ratio struct {
	bounds []float64
	ns     []uint64
	sum    float64
}

func newRatio(bounds []float64) ratio {
	return ratio{bounds: bounds, ns: make([]uint64, len(bounds)+1)}
}

func (r *ratio) add(dt time.Duration, v float64) {
	i := 0
	for i < len(r.bounds) && v > r.bounds[i] {
		i++
	}
	r.ns[i] += uint64(dt)
	r.sum += v * float64(dt)
}

func (r *ratio) metric(d *prometheus.Desc, labels ...string) prometheus.Metric {
	buckets, n := map[float64]uint64{}, uint64(0)
	for i, b := range r.bounds {
		n += r.ns[i]
		buckets[b] = n
	}
	return prometheus.MustNewConstHistogram(d, n+r.ns[len(r.bounds)], r.sum, buckets, labels...)
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.inqueue, m.inqueueSeats, m.executing, m.executingSeats, m.nominal, m.lower, m.upper, m.current,
		m.high, m.average, m.deviation, m.smooth, m.target, m.fair, m.now, m.use, m.load, m.want, m.mix,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	gauge(m.fair, m.c.fair)
	m.c.mix.collect(m.mix, ch)
	for _, l := range m.c.levels {
		l.mu.Lock()
		l.advance(clock.Now())
		for _, v := range []struct {
			d *prometheus.Desc
			v float64
		}{
			{m.nominal, float64(l.bounds.nominal)}, {m.lower, float64(l.bounds.least)}, {m.upper, float64(l.bounds.most)},
			{m.current, float64(l.limit)}, {m.high, float64(l.demand.high)}, {m.average, l.demand.avg},
			{m.deviation, l.demand.dev}, {m.smooth, l.demand.smoothed}, {m.now, l.r},
			{m.target, max(float64(l.bounds.least), l.demand.smoothed)},
		} {
			gauge(v.d, v.v, l.name)
		}
		for _, f := range l.flows {
			gauge(m.inqueue, float64(f.waiting), l.name, f.schema)
			gauge(m.inqueueSeats, float64(f.waitingSeats), l.name, f.schema)
			gauge(m.executing, float64(f.executing), l.name, f.schema)
			gauge(m.executingSeats, float64(f.seats), l.name, f.schema)
		}
		ch <- l.met.seats.metric(m.use, l.name, "executing")
		ch <- l.met.executing.metric(m.load, l.name, "executing")
		ch <- l.met.waiting.metric(m.load, l.name, "waiting")
		ch <- l.met.demand.metric(m.want, l.name)
		l.mu.Unlock()
	}
}
