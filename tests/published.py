"""published.py - chat templates in the shapes in which the authors of models publish them, written again from
memory and shortened: what they say for plain conversations is the same, the parts about tools are not whole.
test_published.py compares what the engine reads of them with what `transformers` renders.

READ: name -> template, to be rendered with the ids of `transformers`. SAID: those of which it is said that
they are not understood.
"""

BAR = "\uff5c"


def turns(user, assistant, system="", generate="", begin=""):
    """The shape of most short templates: one branch for each role."""
    return (begin + "{% for message in messages %}{% if message['role'] == 'user' %}" + user +
            ("{% elif message['role'] == 'system' %}" + system if system else "") +
            "{% elif message['role'] == 'assistant' %}" + assistant + "{% endif %}{% endfor %}" +
            ("{% if add_generation_prompt %}" + generate + "{% endif %}" if generate else ""))


NO_PROMPT_YET = ("{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
                 "{% endif %}")
CHATML_TURN = r"{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
CHATML_END = r"{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = "{% for message in messages %}" + CHATML_TURN + CHATML_END
ALTERNATE = ("{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must "
             "alternate user/assistant/user/assistant/...') }}{% endif %}")


def spoken_for(words):
    """Words for the system, where the user has none."""
    return ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
            r"{{ '<|im_start|>system\n" + words + r"<|im_end|>\n' }}{% endif %}" + CHATML_TURN + CHATML_END)


READ = {
    # ---------------------------------------------------------------- ChatML
    "chatml": CHATML,
    "chatml, generation prompt defined": NO_PROMPT_YET + CHATML,
    "hermes 2 on llama 3": "{{bos_token}}" + CHATML,
    "internlm 2": "{{ bos_token }}" + CHATML,
    "bos at the first message": CHATML.replace(
        "{{'<|im_start|>'", "{% if loop.first %}{{ bos_token }}{% endif %}{{'<|im_start|>'"),
    "bos joined to it":
        "{% for m in messages %}{{ (bos_token if loop.index == 1 else '') ~ '<|im_start|>' ~ m.role ~"
        r" '\n' ~ m.content ~ '<|im_end|>\n' }}" + CHATML_END,
    "qwen 1.5": spoken_for("You are a helpful assistant"),
    "qwen 2": spoken_for("You are a helpful assistant."),
    "smollm 2": spoken_for("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "default words in a variable":
        r"{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        r"{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        r"{% set system_message = 'Answer with care.' %}{% endif %}"
        r"{{ '<|im_start|>system\n' + system_message + '<|im_end|>\n' }}"
        r"{% for message in loop_messages %}" + CHATML_TURN + CHATML_END,
    "default words by a filter":
        "{% set s = messages[0].content if messages[0].role == 'system' %}"
        r"<|im_start|>system" "\n{{ s | default('Be good.') }}<|im_end|>\n"
        "{% for message in messages %}{% if message.role != 'system' %}" + CHATML_TURN + "{% endif %}" +
        CHATML_END,
    "qwen 2.5": r'''{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n# Tools\n\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.'
            '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first)
        or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
''',
    "yi": NO_PROMPT_YET +
        "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}{% endif %}"
        "{% if system_message is defined %}{{ system_message }}{% endif %}" + turns(
            r"{{ '<|im_start|>user\n' + message['content'] + '<|im_end|>\n<|im_start|>assistant\n' }}",
            r"{{ message['content'] + '<|im_end|>' + '\n' }}"),
    "trimmed": CHATML.replace("message['content']", "message['content'] | trim"),
    "stripped to the left": CHATML.replace("message['content']", "message['content'].lstrip()"),
    "no newline after the end": CHATML.replace(r" + '\n'}}", " }}"),
    "an end after replies only": turns(
        r"{{ '<|im_start|>user\n' + message.content + '\n' }}",
        r"{{ '<|im_start|>assistant\n' + message.content + '<|im_end|>\n' }}",
        r"{{ '<|im_start|>system\n' + message.content + '\n' }}", r"{{ '<|im_start|>assistant\n' }}"),
    "an end after replies only, by a condition":
        r"{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content }}{% if m['role'] == "
        r"'assistant' %}"
        r"{{ '<|im_end|>' }}{% endif %}{{ '\n' }}" + CHATML_END,
    "eos after replies": turns(
        r"{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}",
        r"{{ '<|im_start|>assistant\n' + message.content + '<|im_end|>' + eos_token + '\n' }}",
        r"{{ '<|im_start|>system\n' + message.content + '<|im_end|>\n' }}", r"{{ "
        r"'<|im_start|>assistant\n' }}"),
    "a thought is opened": CHATML.replace(r"assistant\n' }}", r"assistant\n<think>\n' }}"),
    "no thought is meant": CHATML.replace(r"assistant\n' }}", r"assistant\n<think>\n\n</think>\n\n' }}"),
    "qwq": r'''{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" and not message.tool_calls %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n<think>\n' }}
{%- endif %}
''',
    "marks between the tags": '''{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}''',
    "for training": CHATML.replace("{{'<|im_start|>'", "{% generation %}{{'<|im_start|>'").replace(
        r"'\n'}}", r"'\n'}}{% endgeneration %}", 1),

    # ---------------------------------------------------------------- Llama 3
    "llama 3": "{% set loop_messages = messages %}{% for message in loop_messages %}"
        r"{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ "
        r"message['content'] | "
        "trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
        r"{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
    "llama 3 without bos": "{% for message in messages %}"
        r"{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + "
        r"'<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
        r"{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "llama 3.1": r'''{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message is taken out, so that it stands in the right place #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\n\n"}}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("There is no first message to put the tools in!") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim +
            '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' + arg_val + '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
''',
}
READ["llama 3.2"] = READ["llama 3.1"].replace('''    {%- set date_string = "26 Jul 2024" %}
''', '''    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
''')

READ |= {
    # ---------------------------------------------------------------- Llama 2 and Mistral
    "llama 2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set "
        "system_message = "
        "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = "
        "false %}"
        "{% endif %}{% for message in loop_messages %}" + ALTERNATE +
        "{% if loop.index0 == 0 and system_message != false %}"
        r"{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}"
        "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'system' %}"
        r"{{ '<<SYS>>\n' + content.strip() + '\n<</SYS>>\n\n' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama 2 with its words": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% elif true == true and not '<<SYS>>' in "
        "messages[0]['content'] %}{% set loop_messages = messages %}{% set system_message = 'You are "
        "honest.' %}"
        "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
        "{% for message in loop_messages %}{% if loop.index0 == 0 and system_message != false %}"
        r"{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}"
        "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "mistral 7b v0.1": "{{ bos_token }}{% for message in messages %}" + ALTERNATE +
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}{% else %}"
        "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
    "mistral 7b v0.2": "{{ bos_token }}{% for message in messages %}" + ALTERNATE +
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}"
        "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
    "mistral v1 with a system prompt": '''{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('The roles must alternate, but for a system message at the beginning') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- " [INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}
        {%- else %}
            {{- " [INST] " + message["content"] + " [/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception("Only user
            and assistant roles are supported, but for an initial system message!") }}
    {%- endif %}
{%- endfor %}
''',
    "mistral v3": '''{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- User and assistant have to alternate; tool calls are passed over #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results"
        or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("The roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {{- tool.function | tojson }}
            {%- endfor %}
            {{- "][/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
        {%- endfor %}
        {{- "]" + eos_token }}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + "[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
''',
}
READ["mistral nemo"] = READ["mistral v3"].replace('"[INST] "', '"[INST]"').replace(
    '" " + message["content"]|trim', 'message["content"]')
READ["mistral v7"] = '''{{- bos_token }}
{%- for message in messages %}
    {%- if message["role"] == "system" %}
        {{- "[SYSTEM_PROMPT] " + message["content"] + "[/SYSTEM_PROMPT]" }}
    {%- elif message["role"] == "user" %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token }}
    {%- endif %}
{%- endfor %}
'''

GEMMA = r'''{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
'''
ZEPHYR = '''{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}'''
DEEPSEEK = (NO_PROMPT_YET + r"{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, "
    r"system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}"
    r"{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor "
    r"%}{{bos_token}}{{ns.system_prompt}}"
    r"{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}"
    r"{{'<%User%>' + message['content']}}{%- endif %}"
    r"{%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}"
    r"{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}{{'<%Assistant%>' + tool['type']}}"
    r"{%- set ns.is_first = true -%}{%- endif %}{%- endfor %}{%- endif %}"
    r"{%- if message['role'] == 'assistant' and message['content'] is not none %}{%- if ns.is_tool %}"
    r"{{'<%tool_outputs_end%>' + message['content'] + '</s>'}}{%- set ns.is_tool = false -%}{%- else %}"
    r"{% set content = message['content'] %}{% if '</think>' in content %}"
    r"{% set content = content.split('</think>')[-1] %}{% endif %}{{'<%Assistant%>' + content + "
    r"'</s>'}}{%- endif %}"
    r"{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- endif %}{%- endfor -%}"
    r"{% if ns.is_tool %}{{'<%tool_outputs_end%>'}}{% endif %}"
    r"{% if add_generation_prompt and not ns.is_tool %}{{'<%Assistant%>'}}{% endif %}")
for mark in ("User", "Assistant", "tool_outputs_end"):
    DEEPSEEK = DEEPSEEK.replace(f"%{mark}%", BAR + mark + BAR)
PHI3_USER = r"{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}"

READ |= {
    # ---------------------------------------------------------------- others
    "gemma 3": GEMMA,
    "gemma 2":
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
        "supported') }}"
        "{% endif %}{% for message in messages %}" + ALTERNATE + "{% if (message['role'] == 'assistant') %}"
        "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ "
        "'<start_of_turn>' + role + '\n'"
        " + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}"
        "{{'<start_of_turn>model\n'}}{% endif %}",
    "zephyr": ZEPHYR,
    "stablelm 2 zephyr": ZEPHYR.replace("eos_token", "'<|im_end|>'"),
    "tulu": turns(r"{{ '<|user|>\n' + message['content'] + '\n' }}",
                  r"{% if not loop.last %}{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' "
                  r"}}{% else %}"
                  r"{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endif %}",
                  r"{{ '<|system|>\n' + message['content'] + '\n' }}").replace(
                      "{% endfor %}", r"{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}"
                      "{% endif %}{% endfor %}"),
    "phi 3": turns(r"{{'<|user|>\n' + message['content'] + '<|end|>\n'}}",
                   r"{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}",
                   r"{{'<|system|>\n' + message['content'] + '<|end|>\n'}}", r"{{ '<|assistant|>\n' }}"
                   "{% else %}{{ eos_token }}"),
    "phi 3, of April 2024": turns(PHI3_USER, r"{{message['content'] + '<|end|>' + '\n'}}", begin="{{ "
    "bos_token }}"),
    "phi 3.5": "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
        r"{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
        r"{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
        r"{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
        r"{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "phi 4": "{% for message in messages %}{% if (message['role'] == 'system') %}"
        "{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] "
        "== 'user') %}"
        "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == "
        "'assistant') %}"
        "{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
    "deepseek r1": DEEPSEEK,
    "deepseek r1, a thought is opened": DEEPSEEK.replace(f"Assistant{BAR}>'}}}}{{% endif %}}",
                                                         f"Assistant{BAR}><think>\\n'}}}}{{% endif %}}"),
    "deepseek llm": NO_PROMPT_YET + "{{ bos_token }}" + turns(
        r"{{ 'User: ' + message['content'] + '\n\n' }}",
        r"{{ 'Assistant: ' + message['content'] + eos_token }}",
        r"{{ message['content'] + '\n\n' }}", "{{ 'Assistant:' }}"),
    "vicuna": turns("{{ 'USER: ' + message['content'] + ' ' }}",
                    "{{ 'ASSISTANT: ' + message['content'] + eos_token }}",
                    r"{{ message['content'] + '\n\n' }}", "{{ 'ASSISTANT:' }}", "{{ bos_token }}"),
    "solar": turns(r"{{ '### User:\n' + message['content'] + '\n\n' }}",
                   r"{{ '### Assistant:\n' + message['content'] + eos_token + '\n\n' }}",
                   r"{{ '### System:\n' + message['content'] + '\n\n' }}", r"{{ '### Assistant:\n' }}"),
}

SAID = {
    "qwen 3": r'''{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user"
        and not(message.content.startswith('<tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if (message.role == "user") or (message.role == "system") %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') +
                '\n</think>\n\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
''',
    "capital letters": CHATML.replace("message['content']", "message['content'] | upper"),
    "the number of a turn": CHATML.replace("'<|im_start|>'", "loop.index ~ '<|im_start|>'"),
    "the last message alone":
        r"{{ '<|im_start|>user\n' + messages[-1].content + '<|im_end|>\n<|im_start|>assistant\n' }}",
    "what a message says decides": CHATML.replace(
        CHATML_TURN, "{% if 'code' in message.content %}{{ 'Code! ' }}{% endif %}" + CHATML_TURN),
    "a message twice": CHATML.replace("message['content']", "message['content'] + message['content']"),
    "words around the last turn": CHATML.replace(
        CHATML_TURN, CHATML_TURN + "{% if loop.last %}{{ 'Think first.' }}{% endif %}"),
    "a macro": "{% macro turn(m) %}" + CHATML_TURN.replace("message", "m") + "{% endmacro %}"
        "{% for message in messages %}{{ turn(message) }}" + CHATML_END,
    "a part that nobody knows": CHATML + "{% include 'more' %}",
    "no end": CHATML.replace("{% endfor %}", ""),
    "not of Jinja": CHATML + "{{ 1 +* }}",
}
