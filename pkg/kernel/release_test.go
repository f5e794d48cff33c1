package kernel

import (
	"slices"
	"testing"
)

func TestFamilies(t *testing.T) {
	for release, want := range map[string][]Family{
		"2.6.32-5-amd64": {F0}, "2.6.32-431.el6.x86_64": {F0}, "3.0.1": {F0}, "2.6.32-504.el6.x86_64": {RHEL66}, "2.6.32-573.el6.x86_64": {F0, RHEL66, RHEL68}, "2.6.32-642.el6.x86_64": {RHEL68}, "2.6.32-042stab123.1": {F0, RHEL66, RHEL68},
		"3.1.3": {F1}, "3.2.0-4-amd64": {F1}, "3.9.6": {F1},
		"3.10.99": {F2}, "3.10.0-1062.el7.x86_64": {F2}, "3.16.0-4-amd64": {F2}, "4.4.0-21-generic": {F2}, "4.9.0-19-amd64": {F2}, "4.15.18": {F2}, "4.16.13": {F2},
		"4.14.177": {F3}, "4.15.0-213-generic": {F3}, "4.17.0": {F3}, "4.19.222": {F3}, "4.19.0-27-amd64": {F3}, "4.19.0-0.bpo.19-cloud-amd64": {F3},
		"4.20.0": {F4}, "5.0.0-65-generic": {F4}, "5.1.0": {F4}, "4.18.0-80.el8.x86_64": {F4}, "4.18.0-147.el8.x86_64": {F4},
		"4.18.0-148.el8.x86_64": {F4, F5}, "4.18.0-193.28.1.el8_2.x86_64": {F4, F5}, "4.18.0-239.el8.x86_64": {F4, F5},
		"4.18.0-240.el8.x86_64": {F5}, "4.18.0-553.el8_10.x86_64": {F5}, "5.14.0-427.el9.x86_64": {F5}, "6.12.0-55.el10.x86_64": {F5},
		"4.14.355-271.amzn2.x86_64": {F3, F5}, "4.14.35-2047.el7uek.x86_64": {F3, F5}, "5.4.17-2136.el8uek.x86_64": {F5},
		"4.12.14-122-default": {F2, F5}, "4.14.0-115.el7a.aarch64": {F3, F5}, "4.19.113-300.el8.x86_64": {F3, F5},
		"3.10.108-1.el6.elrepo.x86_64": {F2}, "4.4.241-1.el7.elrepo.x86_64": {F2}, "5.15.0-1-pve": {F5}, "4.19.90-2102.oe1.x86_64": {F3, F5},
		"5.2.0": {F5}, "5.2": {F5}, "6.1.0-13-amd64": {F5}, "6.18.44-fc-v669": {F5}, "7.3.1": {F5},
		"not a release": {F0, F2, F5},
	} {
		got, why := Host{Release: release}.Families()
		if !slices.Equal(got, want) || (len(got) > 1) != (why != "") {
			t.Errorf("%s: %v (%s), want %v", release, got, why, want)
		}
	}
}

func TestProbeSettlesTheRule(t *testing.T) {
	for _, tt := range []struct {
		release string
		newRule bool
		want    []Family
	}{
		{"4.18.0-193.el8.x86_64", true, []Family{F5}},
		{"4.18.0-193.el8.x86_64", false, []Family{F4}},
		{"4.14.355-271.amzn2.x86_64", false, []Family{F3}},
		{"not a release", false, []Family{F0, F2}},
		{"6.1.0", false, []Family{F5}}, // the release tells: nothing to settle
	} {
		h := Host{Release: tt.release, NewRule: &tt.newRule}
		if got, why := h.Families(); !slices.Equal(got, tt.want) || (len(got) > 1) != (why != "") {
			t.Errorf("%s, new rule %v: %v (%s), want %v", tt.release, tt.newRule, got, why, tt.want)
		}
	}
}

func FuzzParseRelease(f *testing.F) {
	f.Add("6.1.0-13-amd64")
	f.Add("99999999999999999999.1")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := ParseRelease(s); err == nil {
			if families, _ := (Host{Release: s}).Families(); len(families) == 0 {
				t.Errorf("%q: no family", s)
			}
		}
	})
}
