package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// The elements that readers of JUnit's XML agree on. A case's properties are a
// later addition, which those that do not know it pass over.
type (
	testSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []*testSuite `xml:"testsuite"`
	}
	testSuite struct {
		Name      string     `xml:"name,attr"`
		Tests     int        `xml:"tests,attr"`
		Failures  int        `xml:"failures,attr"`
		Errors    int        `xml:"errors,attr"`
		Skipped   int        `xml:"skipped,attr"`
		Time      string     `xml:"time,attr"`
		Timestamp string     `xml:"timestamp,attr"`
		Cases     []testCase `xml:"testcase"`

		began time.Time
		took  time.Duration
	}
	testCase struct {
		Name       string      `xml:"name,attr"`
		ClassName  string      `xml:"classname,attr"`
		Time       string      `xml:"time,attr"`
		Properties *properties `xml:"properties"`
		Failure    *failure    `xml:"failure"`
		Skipped    *skipped    `xml:"skipped"`
	}
	properties struct {
		All []property `xml:"property"`
	}
	property struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	skipped struct {
		Message string `xml:"message,attr"`
	}
	failure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit writes the records as JUnit's XML: a suite for each group of scenarios, a
// case for each scenario. Times are in seconds, and each measure is three
// properties of its case.
func JUnit(w io.Writer, records []trial.Record) error {
	all := testSuites{Name: "fedlab scenarios"}
	suites := map[string]*testSuite{}
	var took time.Duration
	for _, r := range records {
		group, _, _ := strings.Cut(r.Scenario, "/")
		suite := suites[group]
		if suite == nil {
			suite = &testSuite{Name: group, began: r.Began}
			suites[group] = suite
			all.Suites = append(all.Suites, suite)
		}
		c := testCase{Name: named(r), ClassName: group, Time: inSeconds(lasted(r)), Properties: propertiesOf(r)}
		switch r.Result {
		case trial.Holds, trial.Late:
		case trial.NotJudged:
			c.Skipped = &skipped{Message: against(r)[0]}
			suite.Skipped++
		default:
			c.Failure = failureOf(r)
			suite.Failures++
			all.Failures++
		}
		suite.Cases = append(suite.Cases, c)
		suite.Tests++
		suite.took += lasted(r)
		if r.Began.Before(suite.began) {
			suite.began = r.Began
		}
		suite.Time, suite.Timestamp = inSeconds(suite.took), suite.began.UTC().Format("2006-01-02T15:04:05")
		all.Tests++
		took += lasted(r)
	}
	all.Time = inSeconds(took)
	text, err := xml.MarshalIndent(all, "", "  ")
	if err == nil {
		_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, text)
	}
	if err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	return nil
}

func failureOf(r trial.Record) *failure {
	why := against(r)
	return &failure{Message: why[0], Type: "does-not-hold", Text: strings.Join(why, "\n")}
}

// against is what speaks against a record that does not hold, or against judging it, a line
// each.
func against(r trial.Record) []string {
	var why []string
	if r.Result == trial.NotJudged {
		why = append(why, fmt.Sprintf("not judged: the machine was late by %s, and what is late by more than %s could be anything", r.Slack, trial.MaxSlack))
	}
	why = append(why, broken(r)...)
	for _, m := range r.Measures {
		if !m.Result.Held() {
			why = append(why, fmt.Sprintf("%s: after %s, want by %s", m.What, seconds(m.Took), seconds(m.Bound)))
		}
	}
	for _, v := range r.Verdicts {
		if !v.Result.Held() {
			why = append(why, v.Says+": "+v.Why)
		}
	}
	if why == nil {
		why = []string{"the record does not say why"}
	}
	return why
}

// broken is what went wrong besides the verdicts: the run's error, which names
// its steps, or those of the steps where it says nothing.
func broken(r trial.Record) []string {
	if r.Error != "" {
		return []string{r.Error}
	}
	var why []string
	for _, s := range r.Steps {
		if s.Error != "" {
			why = append(why, s.Name+": "+s.Error)
		}
	}
	return why
}

func propertiesOf(r trial.Record) *properties {
	p := &properties{}
	add := func(name, value string) { p.All = append(p.All, property{name, value}) }
	add("claim", r.Claim)
	add("lab", r.Lab)
	if r.On != (trial.On{}) {
		add("profile", string(r.On.Profile))
		add("mode", string(r.On.Mode))
	}
	add("result", string(r.Result))
	add("slack", inSeconds(r.Slack.Total()))
	if r.Mutation != "" {
		add("mutation", r.Mutation)
	}
	for _, m := range r.Measures {
		add(m.What+": took", inSeconds(m.Took))
		add(m.What+": bound", inSeconds(m.Bound))
		add(m.What+": result", string(m.Result))
	}
	return p
}

func inSeconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// lasted is how long the run took.
func lasted(r trial.Record) time.Duration { return max(0, r.Ended.Sub(r.Began)) }
