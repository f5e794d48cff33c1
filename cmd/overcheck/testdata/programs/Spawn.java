import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Starts a process for each line of standard input and answers with an error number: the victim's protocol. */
public class Spawn {
	public static void main(String[] args) throws Exception {
		BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
		Pattern error = Pattern.compile("error(?:=|: )(\\d+)");
		System.out.println("ready");
		while (in.readLine() != null) {
			String errno = "0";
			try {
				new ProcessBuilder("/bin/true").start().waitFor();
			} catch (IOException e) {
				Matcher m = error.matcher(e.getMessage());
				errno = m.find() ? m.group(1) : e.getMessage();
			}
			System.out.println(errno);
		}
	}
}
