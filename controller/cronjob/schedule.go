package cronjob

import (
	"errors"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/semantics/cron"
)

// Upstream's figures.
const (
	nextDelta  = 100 * time.Millisecond // a moment is looked at so long after it has come
	manyMissed = 100                    // more than so many moments missed are told of
)

// timetable is a schedule in its zone.
type timetable struct {
	schedule *cron.Schedule
	zone     *time.Location
}

func (t timetable) next(after time.Time) time.Time {
	if t.zone == nil {
		return t.schedule.Next(after)
	}
	return t.schedule.Next(after.In(t.zone))
}

// read makes a CronJob's timetable. A zone within the schedule is no longer
// accepted by the server but may be stored.
func read(s *batchv1.CronJobSpec) (t timetable, zoned bool, err error) {
	line := s.Schedule
	if rest, ok := strings.CutPrefix(strings.TrimPrefix(line, "CRON_"), "TZ="); ok {
		name, fields, _ := strings.Cut(rest, " ")
		if t.zone, err = time.LoadLocation(name); err != nil {
			return t, true, fmt.Errorf("provided bad location %s: %v", name, err)
		}
		line, zoned = strings.TrimSpace(fields), true
	} else if s.TimeZone != nil {
		if t.zone, err = time.LoadLocation(*s.TimeZone); err != nil {
			return t, false, err
		}
	}
	t.schedule, err = cron.Parse(line)
	return t, zoned, err
}

// moments is where a CronJob stands in its timetable.
type moments struct {
	from   time.Time // what was looked at begins here
	latest time.Time // the last moment that has come; zero when none has
	missed int64     // how many have come, when more than one
}

var errTooClose = errors.New("time difference between two schedules is less than 1 second")

// stand finds the moments between the last start and now. With limited, those
// that the starting deadline has passed over do not count.
func stand(cj *batchv1.CronJob, t timetable, now time.Time, limited bool) (moments, error) {
	m := moments{from: cj.CreationTimestamp.Time}
	if cj.Status.LastScheduleTime != nil {
		m.from = cj.Status.LastScheduleTime.Time
	}
	if d := cj.Spec.StartingDeadlineSeconds; limited && d != nil {
		if at := now.Add(-time.Duration(*d) * time.Second); at.After(m.from) {
			m.from = at
		}
	}
	first := t.next(m.from)
	second := t.next(first)
	if first.IsZero() || now.Before(first) {
		return m, nil
	}
	if second.IsZero() || now.Before(second) {
		m.latest = first
		return m, nil
	}
	step := int64(second.Sub(first).Round(time.Second).Seconds())
	if step < 1 {
		return m, errTooClose
	}
	m.missed = int64(now.Sub(first).Seconds())/step + 1
	// The distance of two moments says about where now is; one step back lets
	// the schedule itself say exactly.
	for at := t.next(first.Add(time.Duration((m.missed-2)*step) * time.Second)); !at.IsZero() && !at.After(now); at = t.next(at) {
		m.latest = at
	}
	return m, nil
}

// until returns how long to wait for the next moment; false when there is none.
func until(cj *batchv1.CronJob, t timetable, now time.Time) (time.Duration, bool) {
	m, err := stand(cj, t, now, false)
	last := m.latest
	if err != nil || last.IsZero() && m.missed > 0 {
		last = now
	} else if last.IsZero() {
		last = m.from
	}
	next := t.next(last)
	if next.IsZero() {
		return 0, false
	}
	return next.Add(nextDelta).Sub(now), true
}

// tooLate says whether the starting deadline of a moment has passed.
func tooLate(cj *batchv1.CronJob, at, now time.Time) bool {
	d := cj.Spec.StartingDeadlineSeconds
	return d != nil && at.Add(time.Duration(*d)*time.Second).Before(now)
}

// nameAt is the name of the Job of a moment.
func nameAt(cj *batchv1.CronJob, at time.Time) string {
	return fmt.Sprintf("%s-%d", cj.Name, at.Unix()/60)
}

func suspended(cj *batchv1.CronJob) bool { return ptr.Deref(cj.Spec.Suspend, false) }
