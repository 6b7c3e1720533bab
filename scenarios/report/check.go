package report

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/look"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// What a record may have. A run stays far below all of these; they keep the work
// of judging and drawing a record that somebody else wrote within seconds.
const (
	fileLimit     = 32 << 20 // bytes of a file
	textLimit     = 64 << 10 // bytes of a text
	listLimit     = 500      // elements of a list that has no limit of its own
	callLimit     = 5 * traffic.MaxCalls
	holdingLimit  = 2000
	lookLimit     = 20_000
	outcomeLimit  = 50 // different ways in which calls end
	longest       = 7 * 24 * time.Hour
	atLeastMargin = 24 * time.Hour // by which a time may be before the run
)

// check returns an error that names the first field by which a record can be
// neither judged nor drawn. Every renderer can rely on what it has let through.
func check(r trial.Record) error {
	const example = "2026-03-14T12:00:00Z"
	switch {
	case r.Began.IsZero():
		return fmt.Errorf("began is missing: want the time at which the run began, such as %s", example)
	case r.Ended.IsZero():
		return fmt.Errorf("ended is missing: want the time at which the run ended, such as %s", example)
	case r.Ended.Before(r.Began):
		return fmt.Errorf("ended is %s, before began, which is %s: want a later time", r.Ended.Format(time.RFC3339), r.Began.Format(time.RFC3339))
	}
	c := checker{began: r.Began}
	if err := c.walk("", reflect.ValueOf(r)); err != nil {
		return err
	}
	return c.distinct(r)
}

type checker struct {
	began time.Time
	calls int // of all streams so far
}

// walk looks at a value and all that is in it. A path is as the JSON has it.
func (c *checker) walk(path string, v reflect.Value) error {
	switch value := v.Interface().(type) {
	case time.Time:
		if from, until := c.began.Add(-atLeastMargin), c.began.Add(longest); !value.IsZero() && (value.Before(from) || value.After(until)) {
			return fmt.Errorf("%s is %s: want a time between %s and %s, since the run began at %s",
				path, value.Format(time.RFC3339), from.Format(time.RFC3339), until.Format(time.RFC3339), c.began.Format(time.RFC3339))
		}
		return nil
	case time.Duration:
		if value < 0 || value > longest {
			return fmt.Errorf("%s is %d ns: want 0 to %d, which is a week", path, value, longest)
		}
		return nil
	case *traffic.Party:
		// What a certificate says may be of any time; it is not on the axis.
		if value == nil {
			return nil
		}
		for name, text := range map[string]string{"id": value.ID, "serial": value.Serial, "authority": value.Authority} {
			if err := c.walk(path+"."+name, reflect.ValueOf(text)); err != nil {
				return err
			}
		}
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		if v.Len() > textLimit {
			return fmt.Errorf("%s has %d bytes: want at most %d", path, v.Len(), textLimit)
		}
	case reflect.Slice:
		most := listLimit
		switch v.Interface().(type) {
		case []traffic.Call:
			c.calls += v.Len()
			if c.calls > callLimit {
				return fmt.Errorf("%s brings the calls of the record to %d: want at most %d", path, c.calls, callLimit)
			}
			most = callLimit
		case []trial.Holding:
			most = holdingLimit
		case []trial.Look:
			most = lookLimit
		}
		if v.Len() > most {
			return fmt.Errorf("%s has %d elements: want at most %d", path, v.Len(), most)
		}
		for i := range v.Len() {
			if err := c.walk(fmt.Sprintf("%s[%d]", path, i), v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			at := path
			if !field.Anonymous { // what is embedded has no name in JSON
				name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				at = strings.TrimPrefix(path+"."+name, ".")
			}
			if err := c.walk(at, v.Field(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// distinct counts what the picture gives a look of its own.
func (c *checker) distinct(r trial.Record) error {
	authorities, outcomes := map[string]bool{}, map[traffic.Outcome]bool{}
	for _, h := range r.Holdings {
		for _, id := range append(h.X509[:len(h.X509):len(h.X509)], h.JWT...) {
			authorities[id] = true
		}
	}
	for _, s := range r.Streams {
		for _, call := range s.Calls {
			outcomes[call.Outcome] = true
			if call.Server != nil {
				authorities[call.Server.Authority] = true
			}
		}
	}
	switch {
	case len(authorities) > look.Looks:
		return fmt.Errorf("holdings and streams name %d different authorities: want at most %d, which a picture can tell apart", len(authorities), look.Looks)
	case len(outcomes) > outcomeLimit:
		return fmt.Errorf("streams have %d different outcomes of calls: want at most %d", len(outcomes), outcomeLimit)
	}
	return nil
}
