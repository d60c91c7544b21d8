// Package cron reads schedules as cron spells them.
//
// Job: Parse a line of five fields or a word such as @daily, and tell the next
// time it means.
//
// Not its job: running anything.
//
// Invariants: pure; what parses has a Next, or none within five years.
package cron

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule is a set of moments.
type Schedule struct {
	minute, hour, day, month, weekday uint64
	// A star in one of the two day fields leaves the choice to the other.
	anyDay, anyWeekday bool
	every              time.Duration // of "@every 5m"
}

type bounds struct {
	low, high uint
	names     map[string]uint
}

var (
	minutes  = bounds{0, 59, nil}
	hours    = bounds{0, 23, nil}
	days     = bounds{1, 31, nil}
	months   = bounds{1, 12, named(1, "jan feb mar apr may jun jul aug sep oct nov dec")}
	weekdays = bounds{0, 6, named(0, "sun mon tue wed thu fri sat")}

	words = map[string]string{
		"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *",
		"@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
	}
)

func named(first uint, names string) map[string]uint {
	out := map[string]uint{}
	for i, n := range strings.Fields(names) {
		out[n] = first + uint(i)
	}
	return out
}

// Parse reads a schedule.
func Parse(line string) (*Schedule, error) {
	if line == "" {
		return nil, errors.New("empty spec string")
	}
	if text, ok := strings.CutPrefix(line, "@every "); ok {
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("failed to parse duration %s: %s", line, err)
		}
		return &Schedule{every: max(d.Truncate(time.Second), time.Second)}, nil
	}
	if strings.HasPrefix(line, "@") {
		full, ok := words[line]
		if !ok {
			return nil, fmt.Errorf("unrecognized descriptor: %s", line)
		}
		line = full
	}
	fields := strings.Fields(line)
	if len(fields) != 5 {
		return nil, fmt.Errorf("expected exactly 5 fields, found %d: %v", len(fields), fields)
	}
	s := &Schedule{anyDay: anything(fields[2]), anyWeekday: anything(fields[4])}
	for i, to := range []*uint64{&s.minute, &s.hour, &s.day, &s.month, &s.weekday} {
		bits, err := parseField(fields[i], []bounds{minutes, hours, days, months, weekdays}[i])
		if err != nil {
			return nil, err
		}
		*to = bits
	}
	return s, nil
}

// anything says whether a field leaves its value open.
func anything(f string) bool {
	for part := range strings.SplitSeq(f, ",") {
		if part == "*" || part == "?" {
			return true
		}
	}
	return false
}

func parseField(f string, b bounds) (uint64, error) {
	var bits uint64
	for part := range strings.SplitSeq(f, ",") {
		if part == "" {
			continue
		}
		more, err := parseRange(part, b)
		if err != nil {
			return 0, err
		}
		bits |= more
	}
	return bits, nil
}

// parseRange reads "*", "n", "n-m", each with a step.
func parseRange(text string, b bounds) (uint64, error) {
	span, stepText, stepped := strings.Cut(text, "/")
	if strings.Contains(stepText, "/") {
		return 0, fmt.Errorf("too many slashes: %s", text)
	}
	ends := strings.Split(span, "-")
	single := len(ends) == 1
	low, high, step := b.low, b.high, uint(1)
	var err error
	if ends[0] != "*" && ends[0] != "?" {
		if low, err = parseValue(ends[0], b.names); err != nil {
			return 0, err
		}
		switch len(ends) {
		case 1:
			high = low
		case 2:
			if high, err = parseValue(ends[1], b.names); err != nil {
				return 0, err
			}
		default:
			return 0, fmt.Errorf("too many hyphens: %s", text)
		}
	}
	if stepped {
		if step, err = parseNumber(stepText); err != nil {
			return 0, err
		}
		// "n/s" means "n-max/s".
		if single {
			high = b.high
		}
	}
	switch {
	case low < b.low:
		return 0, fmt.Errorf("beginning of range (%d) below minimum (%d): %s", low, b.low, text)
	case high > b.high:
		return 0, fmt.Errorf("end of range (%d) above maximum (%d): %s", high, b.high, text)
	case low > high:
		return 0, fmt.Errorf("beginning of range (%d) beyond end of range (%d): %s", low, high, text)
	case step == 0:
		return 0, fmt.Errorf("step of range should be a positive number: %s", text)
	}
	var bits uint64
	for i := low; i <= high; i += step {
		bits |= 1 << i
	}
	return bits, nil
}

func parseValue(text string, names map[string]uint) (uint, error) {
	if n, ok := names[strings.ToLower(text)]; ok {
		return n, nil
	}
	return parseNumber(text)
}

func parseNumber(text string) (uint, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("failed to parse int from %s: %s", text, err)
	}
	if n < 0 {
		return 0, fmt.Errorf("negative number (%d) not allowed: %s", n, text)
	}
	return uint(n), nil
}

// horizon is how many years ahead a schedule is looked for: long enough for
// the 29th of February.
const horizon = 5

// Next is the first moment after t, in t's zone; zero when there is none.
func (s *Schedule) Next(t time.Time) time.Time {
	if s.every > 0 {
		return t.Add(s.every - time.Duration(t.Nanosecond()))
	}
	loc := t.Location()
	t = t.Truncate(time.Second).Add(time.Minute - time.Duration(t.Second())*time.Second)
	for last := t.Year() + horizon; t.Year() <= last; {
		switch {
		case s.month&(1<<uint(t.Month())) == 0:
			t = time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, loc)
		case !s.onDay(t):
			t = nextDay(t)
		case s.hour&(1<<uint(t.Hour())) == 0:
			// By duration, since a zone may repeat or skip hours.
			t = t.Add(time.Duration(60-t.Minute()) * time.Minute)
		case s.minute&(1<<uint(t.Minute())) == 0:
			t = t.Add(time.Minute)
		default:
			return t
		}
	}
	return time.Time{}
}

// nextDay is the first moment of the next day, which need not be midnight.
func nextDay(t time.Time) time.Time {
	n := time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, t.Location())
	if n.Hour() > 12 {
		n = n.Add(time.Duration(24-n.Hour()) * time.Hour)
	}
	return n
}

func (s *Schedule) onDay(t time.Time) bool {
	day, weekday := s.day&(1<<uint(t.Day())) != 0, s.weekday&(1<<uint(t.Weekday())) != 0
	if s.anyDay || s.anyWeekday {
		return day && weekday
	}
	return day || weekday
}
