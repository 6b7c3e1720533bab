package traffic_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// stored is a record with verdicts on it.
type stored struct {
	Streams  []traffic.Stream  `json:"streams"`
	Verdicts []traffic.Verdict `json:"verdicts"`
}

func load(t *testing.T, file string) (record stored) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &record)
	}
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// judged says for each verdict in testdata what speaks against it; nothing if it
// holds.
func judged() map[string]map[string]string {
	return map[string]map[string]string{
		"fault": {
			"answered before the fault":        "",
			"answered all the time":            `stream "orders": not answered: 5 of 20 calls, the first is call 8 at 09:00:07.000 UTC: refused-by-server, server spiffe://cluster1.com/fedlab/probe under authority aa01: remote error: tls: bad certificate`,
			"fails only in the fault":          "",
			"fails only late in the fault":     `stream "orders": not answered: 2 of 16 calls, the first is call 8 at 09:00:07.000 UTC: refused-by-server, server spiffe://cluster1.com/fedlab/probe under authority aa01: remote error: tls: bad certificate`,
			"not answered in the fault":        "",
			"not answered after the fault":     `stream "orders": answered: 1 of 6 calls, the first is call 13 at 09:00:12.000 UTC: answered, server spiffe://cluster1.com/fedlab/probe under authority aa01`,
			"refused three seconds later":      "",
			"refused a second later":           `stream "orders": other than refused-by-server as late as call 7 at 09:00:06.000 UTC, want none after 09:00:05.900 UTC`,
			"out of reach three seconds later": `stream "orders": other than unreachable or no-answer: 6 of 6 calls, the first is call 6 at 09:00:05.000 UTC: answered, server spiffe://cluster1.com/fedlab/probe under authority aa01`,
			"answered three seconds later":     "",
			"answered a second later":          `stream "orders": not answered as late as call 12 at 09:00:11.000 UTC, want none after 09:00:10.900 UTC`,
			"resumed":                          `stream "orders": no session resumed: 20 calls, the last is call 20 at 09:00:19.000 UTC: answered, server spiffe://cluster1.com/fedlab/probe under authority aa01`,
			"not resumed":                      `stream "orders": no session was offered: the connection is fresh`,
		},
		"rotation": {
			"signed by the new authority":            "",
			"signed by the new authority too soon":   `stream "orders": not answered under authority aa02 as late as call 6 at 09:00:05.000 UTC, want none after 09:00:04.900 UTC`,
			"signed by an authority that is none":    `stream "orders": not answered under authority aa03: 7 of 7 calls, the first is call 4 at 09:00:03.000 UTC: answered, server spiffe://cluster1.com/fedlab/probe under authority aa01`,
			"signed by the new authority to the end": `stream "orders": not answered under authority aa02: 1 of 6 calls, the first is call 11 at 09:00:10.000 UTC: answered`,
		},
		"revocation": {
			"a refusal is no answer":      `stream "orders": not answered under authority aa01: 3 of 6 calls, the first is call 4 at 09:00:03.000 UTC: refused-by-server, server spiffe://cluster1.com/fedlab/probe under authority aa01: remote error: tls: bad certificate`,
			"signed until it was revoked": "",
		},
		"resumption": {
			"careless resumes":                   "",
			"careless resumes nothing":           `stream "careless": session resumed: 5 of 6 calls, the first is call 2 at 09:00:01.000 UTC: answered, server spiffe://cluster1.com/fedlab/probe under authority aa01`,
			"careful resumes":                    `stream "careful": no session resumed: 6 calls, the last is call 6 at 09:00:05.000 UTC: answered, server spiffe://cluster1.com/fedlab/probe under authority aa01`,
			"careful resumes nothing":            "",
			"who is refused resumed nothing":     "",
			"who reached nobody resumed nothing": `stream "down": no session was offered: no two calls came to a handshake`,
			"who offers nothing resumed nothing": `stream "fresh": no session was offered: the connection is fresh`,
			"the first call resumed nothing":     `stream "careful": no session was offered: no two calls came to a handshake`,
		},
		"gaps": {
			"hole: all":                                `stream "hole": nothing was recorded between 09:00:04.000 UTC and 09:00:14.000 UTC`,
			"hole: all before":                         "",
			"hole: all long before":                    `stream "hole": nothing was recorded between 09:00:04.000 UTC and 09:00:10.000 UTC`,
			"hole: all in it":                          `stream "hole": nothing was recorded between 09:00:05.000 UTC and 09:00:13.000 UTC`,
			"hole: none":                               `stream "hole": nothing was recorded between 09:00:04.000 UTC and 09:00:14.000 UTC`,
			"hole: outside":                            `stream "hole": nothing was recorded between 09:00:04.000 UTC and 09:00:14.000 UTC`,
			"hole: answered by":                        `stream "hole": nothing was recorded between 09:00:04.000 UTC and 09:00:14.000 UTC`,
			"hole: refused by":                         `stream "hole": nothing was recorded between 09:00:04.000 UTC and 09:00:14.000 UTC`,
			"hole: authority":                          `stream "hole": nothing was recorded between 09:00:04.000 UTC and 09:00:14.000 UTC`,
			"hole: resumed":                            `stream "hole": nothing was recorded between 09:00:04.000 UTC and 09:00:14.000 UTC`,
			"hole in the fault: outside":               "",
			"hole in the fault: nothing before":        `stream "hole in the fault": nothing was recorded before 09:00:00.000 UTC`,
			"hole in the fault: nothing after":         `stream "hole in the fault": nothing was recorded between 09:00:18.500 UTC and 09:00:19.000 UTC`,
			"hole in the fault: nothing after the end": `stream "hole in the fault": nothing was recorded after 09:00:30.000 UTC`,
			"slow: as slow as may be":                  "",
			"silent: all":                              `stream "silent": nothing was recorded between 09:00:00.000 UTC and 09:00:19.000 UTC`,
			"silent: none":                             `stream "silent": nothing was recorded between 09:00:00.000 UTC and 09:00:19.000 UTC`,
			"silent: outside":                          `stream "silent": nothing was recorded before 09:00:04.000 UTC`,
			"cut short: to its end":                    `stream "cut short": nothing was recorded between 09:00:04.000 UTC and 09:00:19.000 UTC`,
			"cut short: nothing after the wait":        "",
			"cut short: a wait longer than the window": "",
			"goes on: so far":                          "",
			"goes on: later":                           `stream "goes on": nothing was recorded between 09:00:04.000 UTC and 09:00:19.000 UTC`,
			"goes on: from later on":                   `stream "goes on": nothing was recorded after 09:00:30.000 UTC`,
		},
		"broken": {
			"a call is missing: judged":   `stream "a call is missing": the record is not whole: call 4 stands where call 3 should`,
			"calls change places: judged": `stream "calls change places": the record is not whole: call 4 began before call 3`,
			"an outcome is none: judged":  `stream "an outcome is none": the record is not whole: the outcome of call 5 is "fine"`,
			"twice: judged":               `2 streams are called "twice", want one`,
			"nowhere: judged":             `0 streams are called "nowhere", want one`,
		},
	}
}

func TestVerdictsOnStoredRecords(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	all := judged()
	if len(files) != len(all) {
		t.Errorf("files are %q, want one for each of %d records", files, len(all))
	}
	for name, want := range all {
		record := load(t, filepath.Join("testdata", name+".json"))
		if len(record.Verdicts) != len(want) {
			t.Errorf("%s has %d verdicts, want %d", name, len(record.Verdicts), len(want))
		}
		for _, v := range record.Verdicts {
			said, ok := want[v.Says]
			if !ok {
				t.Errorf("%s: what is to come of %q is not said", name, v.Says)
			}
			got := ""
			if _, err := v.Judge(record.Streams); err != nil {
				got = err.Error()
			}
			if got != said {
				t.Errorf("%s: %q:\n got %s\nwant %s", name, v.Says, got, said)
			}
		}
	}
}

func moment(seconds float64) time.Time {
	return time.Date(2026, time.March, 1, 9, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

func TestVerdictsThatCannotBeJudged(t *testing.T) {
	streams := load(t, "testdata/fault.json").Streams
	for name, test := range map[string]struct {
		change func(*traffic.Verdict)
		want   string
	}{
		"no beginning":           {func(v *traffic.Verdict) { v.From = time.Time{} }, "rule all-answered cannot be judged: from is not set"},
		"an end that is earlier": {func(v *traffic.Verdict) { v.Until = moment(0) }, "rule all-answered cannot be judged: until is 09:00:00.000 UTC, before from, which is 09:00:01.000 UTC"},
		"a wait backwards":       {func(v *traffic.Verdict) { v.Within = -time.Second }, "rule all-answered cannot be judged: within is -1s"},
		"a fault without an end": {func(v *traffic.Verdict) { v.Rule = traffic.AnsweredOutside }, "rule answered-outside cannot be judged: until is not set"},
		"no refusal":             {func(v *traffic.Verdict) { v.Rule = traffic.RefusedBy }, "rule refused-by cannot be judged: outcomes are [], want some that a refusal can have"},
		"an answer as a refusal": {func(v *traffic.Verdict) {
			v.Rule, v.Outcomes = traffic.RefusedBy, []traffic.Outcome{traffic.Expired, traffic.Answered}
		}, `rule refused-by cannot be judged: outcomes are ["expired" "answered"], want some that a refusal can have`},
		"an outcome that is none": {func(v *traffic.Verdict) {
			v.Rule, v.Outcomes = traffic.RefusedBy, []traffic.Outcome{"denied"}
		}, `rule refused-by cannot be judged: outcomes are ["denied"], want some that a refusal can have`},
		"no authority": {func(v *traffic.Verdict) { v.Rule = traffic.AuthorityBy }, "rule authority-by cannot be judged: authority is not set"},
		"no such rule": {func(v *traffic.Verdict) { v.Rule = "mostly-answered" }, `rule "mostly-answered" is not known`},
	} {
		t.Run(name, func(t *testing.T) {
			v := traffic.Verdict{Rule: traffic.AllAnswered, Stream: "orders", From: moment(1)}
			test.change(&v)
			if _, err := v.Judge(streams); err == nil || err.Error() != `stream "orders": `+test.want {
				t.Errorf("error is %v\nwant %s", err, test.want)
			}
		})
	}
}

// TestAFullRecordEnds: what would have come after counts for nothing.
func TestAFullRecordEnds(t *testing.T) {
	s := traffic.Stream{Order: traffic.Order{Name: "orders", Every: time.Second, Within: time.Second}, Began: moment(0)}
	for i := range traffic.MaxCalls {
		s.Calls = append(s.Calls, traffic.Call{Number: i + 1, At: moment(float64(i)), Outcome: traffic.Answered})
	}
	s.Ended = moment(traffic.MaxCalls - 1)
	v := traffic.Verdict{Rule: traffic.AllAnswered, Stream: "orders", From: moment(1)}
	const want = `stream "orders": the record is full: nothing was recorded after 14:33:19.000 UTC`
	if _, err := v.Judge([]traffic.Stream{s}); err == nil || err.Error() != want {
		t.Errorf("error is %v\nwant %s", err, want)
	}
	v.Until = moment(100)
	if _, err := v.Judge([]traffic.Stream{s}); err != nil {
		t.Errorf("what was recorded does not count: %v", err)
	}
}

// TestARefusalNeedsAControl: of a caller who was never answered, a refusal says nothing.
func TestARefusalNeedsAControl(t *testing.T) {
	const missing = `stream "liar": the control is missing: no call from attacker.test to 172.18.200.10:8443 was answered before 09:00:10.000 UTC`
	stream := func(name, from, address string, began float64, ends traffic.Outcome) traffic.Stream {
		s := traffic.Stream{
			Order: traffic.Order{Name: name, Address: address, Every: time.Second, Within: time.Second},
			From:  from, Began: moment(began), Ended: moment(began + 4),
		}
		for i := range 4 {
			s.Calls = append(s.Calls, traffic.Call{Number: i + 1, At: moment(began + float64(i)), Took: 10 * time.Millisecond, Outcome: ends})
		}
		return s
	}
	const here, other = "172.18.200.10:8443", "172.18.200.20:8443"
	liar := stream("liar", "attacker.test", here, 10, traffic.RefusedByServer)
	turned := stream("liar", "attacker.test", here, 8, traffic.RefusedByServer)
	turned.Calls[0].Outcome = traffic.Answered
	broken := stream("honest", "attacker.test", here, 2, traffic.Answered)
	broken.Calls[0].Number = 7
	for name, test := range map[string]struct {
		streams []traffic.Stream
		want    string
	}{
		"nobody was answered":           {[]traffic.Stream{liar}, missing},
		"the same stream was":           {[]traffic.Stream{turned}, ""},
		"the same caller was":           {[]traffic.Stream{liar, stream("honest", "attacker.test", here, 2, traffic.Answered)}, ""},
		"it was while it is refused":    {[]traffic.Stream{liar, stream("honest", "attacker.test", here, 10, traffic.Answered)}, missing},
		"it was refused before, too":    {[]traffic.Stream{liar, stream("honest", "attacker.test", here, 2, traffic.RefusedByServer)}, missing},
		"somebody else was":             {[]traffic.Stream{liar, stream("honest", "cluster1.com", here, 2, traffic.Answered)}, missing},
		"it was by somebody else":       {[]traffic.Stream{liar, stream("honest", "attacker.test", other, 2, traffic.Answered)}, missing},
		"a record that is not whole is": {[]traffic.Stream{liar, broken}, missing},
	} {
		for _, rule := range []traffic.Rule{traffic.NoneAnswered, traffic.RefusedBy} {
			v := traffic.Verdict{Rule: rule, Stream: "liar", From: moment(10), Control: rule.Negative()}
			if rule == traffic.RefusedBy {
				v.Outcomes = []traffic.Outcome{traffic.RefusedByServer}
			}
			got := ""
			if _, err := v.Judge(test.streams); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("%s, %s:\n got %s\nwant %s", name, rule, got, test.want)
			}
			v.Control = false // as in records of before
			if _, err := v.Judge(test.streams); err != nil {
				t.Errorf("%s, %s, with no control asked for: %v", name, rule, err)
			}
		}
	}
}

func TestFirst(t *testing.T) {
	s := load(t, "testdata/fault.json").Streams[0]
	answered := func(c traffic.Call) bool { return c.Outcome == traffic.Answered }
	for since, want := range map[float64]int{0: 1, 3: 4, 3.5: 5, 7: 13} {
		if c, ok := s.First(moment(since), answered); !ok || c.Number != want {
			t.Errorf("the first since %v is call %d, %t; want %d", since, c.Number, ok, want)
		}
	}
	if c, ok := s.First(moment(19.5), answered); ok {
		t.Errorf("after the end there is call %d", c.Number)
	}
}
